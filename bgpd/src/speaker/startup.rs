//! The order of a start: felix's report, sessions, the peers' routes, felix's sweep; and what is said about it in OPEN.

use crds::net::Family;

use crate::Millis;
use crate::fsm::Forwarding;
use crate::wire::Families;

use super::{DataplaneReport, Output, SpeakerEvent};

/// How long the report is waited for.
const REPORT_WAIT: Millis = 10_000;

/// How long sessions may be on their way before their peers count as down.
const COMING: Millis = 5_000;

/// How far the start has come.
#[derive(Debug)]
pub(super) struct Startup {
    started: Millis,
    reported: bool,
    /// There is a dataplane that keeps routes while this speaker is away.
    has_dataplane: bool,
    /// An earlier life ran in the same boot, and left routes.
    restarted: bool,
    /// Families whose routes it left.
    preserved: Families,
    /// When sessions were allowed to start.
    opened: Option<Millis>,
    /// Sessions that are not up have had their time.
    come: bool,
    /// How long the peers' routes are waited for.
    deferral: Millis,
    complete: bool,
}

impl Startup {
    pub(super) fn new(now: Millis) -> Self {
        Self {
            started: now,
            reported: false,
            has_dataplane: false,
            restarted: false,
            preserved: Families::NONE,
            opened: None,
            come: false,
            deferral: 0,
            complete: false,
        }
    }

    /// felix has reported, or it is known that there is none.
    pub(super) fn report(&mut self, report: &DataplaneReport) {
        self.has_dataplane = !report.boot_id.is_empty();
        // What a later felix found says nothing about this life, whose routes it has taken over.
        if !self.reported && self.opened.is_none() {
            self.preserved = report.preserved.iter().copied().collect();
            self.restarted = report.restarted && self.preserved != Families::NONE;
        }
        self.reported = true;
    }

    /// What OPENs say (RFC 4724 section 3). Without a dataplane nobody forwards while this speaker is away.
    pub(super) fn forwarding(&self) -> Forwarding {
        let preserved = if !self.complete {
            self.preserved
        } else if self.has_dataplane {
            Family::ALL.into_iter().collect()
        } else {
            Families::NONE
        };
        Forwarding {
            restarted: self.restarted(),
            preserved,
        }
    }

    /// This speaker has restarted, and its best paths are not complete yet.
    pub(super) fn restarted(&self) -> bool {
        self.restarted && !self.complete
    }

    /// Routes of an earlier life are in the kernel, which are lost where nobody says them again in time.
    pub(super) fn has_kept(&self) -> bool {
        self.preserved != Families::NONE
    }

    /// Whether an End-of-RIB may leave as far as the start is concerned: peers keep our routes of the earlier life until
    /// then, and those of others that we carried are complete only with the best paths.
    pub(super) fn may_end(&self) -> bool {
        !self.restarted()
    }

    /// Sessions that are on their way are still waited for.
    pub(super) fn is_coming(&self, now: Millis) -> bool {
        self.opened.is_none_or(|opened| now < opened + COMING)
    }

    /// Whether sessions may start: no OPEN leaves before felix's report, or before it is overdue.
    pub(super) fn may_start(&mut self, now: Millis, out: &mut Vec<Output>) -> bool {
        if self.opened.is_none() {
            if !self.reported && now < self.started + REPORT_WAIT {
                return false;
            }
            if !self.reported {
                out.push(Output::Event(SpeakerEvent::DataplaneOverdue));
            }
            self.opened = Some(now);
        }
        true
    }

    /// Says that the best paths are complete, once no peer is waited for any more, or for `deferral` milliseconds.
    /// Whether that is so now.
    pub(super) fn settle(
        &mut self,
        waiting: bool,
        deferral: Millis,
        now: Millis,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(opened) = self.opened else {
            return false;
        };
        self.deferral = deferral;
        self.come = now >= opened + COMING;
        let over = now >= opened.saturating_add(deferral);
        if self.complete || waiting && !over {
            return false;
        }
        if waiting {
            out.push(Output::Event(SpeakerEvent::DeferralOver));
        }
        self.complete = true;
        true
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn next_timeout(&self) -> Option<Millis> {
        match self.opened {
            None => Some(self.started + REPORT_WAIT),
            Some(_) if self.complete => None,
            Some(opened) if !self.come => Some(opened + COMING.min(self.deferral)),
            Some(opened) => Some(opened.saturating_add(self.deferral)),
        }
    }
}
