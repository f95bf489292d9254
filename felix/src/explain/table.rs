//! The table `inet margay` as it should be, to look at.

use api::v1;

use crate::nft::build;
use crate::nft::epoch::{Epoch, Options};
use crate::nft::json::Document;
use crate::nft::{rows, terms};
use crate::policy::tables::Tables;

/// What makes the table.
#[derive(Debug, Clone)]
pub struct Picture {
    /// What an operator has chosen of the rules.
    pub options: Options,
    /// The epoch in force.
    pub epoch: Epoch,
    /// The elements of policy, and the links' groups.
    pub tables: Tables,
    /// The elements beside policy.
    pub terms: terms::Elements,
    /// "namespace/name" of the pods of links, by interface.
    pub pods: std::collections::BTreeMap<String, String>,
}

impl Picture {
    /// Writes it, as nft's JSON or as its text. Takes its time for a large one.
    ///
    /// # Errors
    /// When the JSON cannot be written, which no table of ours makes happen.
    pub fn render(&self, json: bool) -> serde_json::Result<v1::RenderTableResponse> {
        let mut table = build::table(self.options, self.epoch);
        table.elements.extend(rows::all(&self.tables));
        table.elements.extend(self.terms.iter().cloned());
        let links = self.tables.links.iter();
        Ok(v1::RenderTableResponse {
            document: match json {
                true => Document::of(&table).text()?,
                false => table.to_string(),
            },
            links: links
                .map(|(interface, subject)| v1::Link {
                    interface: interface.clone(),
                    group: subject.0,
                    pod: self.pods.get(interface).cloned().unwrap_or_default(),
                })
                .collect(),
        })
    }
}
