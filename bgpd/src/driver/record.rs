//! Records a run: what the speaker was made of and every input, so that it can be replayed outside of the network.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::Millis;
use crate::config::{Config, Password};
use crate::speaker::{Input, Output};

/// One line of a recording, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Line {
    /// The first one: what [`Speaker::new`](crate::speaker::Speaker::new) was given, at time 0.
    Start {
        /// Where all random choices come from.
        seed: u64,
        /// The first configuration.
        config: Config,
    },
    /// What [`Speaker::take`](crate::speaker::Speaker::take) was given.
    Input {
        /// When.
        now: Millis,
        /// What.
        input: Input,
    },
    /// [`Speaker::settle`](crate::speaker::Speaker::settle) was called.
    Settled {
        /// When.
        now: Millis,
    },
    /// What it answered to the line before.
    Outputs {
        /// All of it, in order.
        outputs: Vec<Output>,
    },
}

/// The configuration as it may be recorded: passwords are no input of the speaker.
pub(crate) fn without_passwords(config: &Config) -> Config {
    let mut config = config.clone();
    let templates = config.dynamic.iter_mut().map(|it| &mut it.template);
    for peer in config.peers.iter_mut().chain(templates) {
        if let Some(password) = &mut peer.options.password {
            *password = Password("not recorded".to_owned());
        }
    }
    config
}

/// A recording in the making. It never holds a session up for long: after an error nothing more is recorded.
pub(crate) struct Recording(Option<BufWriter<File>>);

impl Recording {
    /// Records nothing.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Begins a file, which must not exist: a recording is evidence.
    pub(crate) fn begin(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .with_context(|| {
                format!(
                    "cannot record to {}: give a file that does not exist",
                    path.display()
                )
            })?;
        Ok(Self(Some(BufWriter::new(file))))
    }

    /// Whether anything is recorded, so that a line is worth making.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn line(&mut self, line: &Line) {
        self.attempt(|file| {
            serde_json::to_writer(&mut *file, line)?;
            file.write_all(b"\n")
        });
    }

    /// Hands everything to the kernel, so that a crash loses nothing.
    pub(crate) fn flush(&mut self) {
        self.attempt(|file| file.flush());
    }

    fn attempt(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) {
        if let Some(file) = &mut self.0
            && let Err(error) = write(file)
        {
            warn!(%error, "nothing more is recorded");
            self.0 = None;
        }
    }
}
