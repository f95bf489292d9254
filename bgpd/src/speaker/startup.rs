//! The order of a start: felix's report, sessions, the peers' routes, felix's sweep.

use crate::Millis;

use super::{Output, SpeakerEvent};

/// How long the report is waited for.
const REPORT_WAIT: Millis = 10_000;

/// How long the peers' End-of-RIBs are waited for once sessions may start. A peer that is down costs no more.
const DEFERRAL: Millis = 10_000;

/// How far the start has come.
#[derive(Debug)]
pub(super) struct Startup {
    started: Millis,
    reported: bool,
    /// When sessions were allowed to start.
    opened: Option<Millis>,
    complete: bool,
}

impl Startup {
    pub(super) fn new(now: Millis) -> Self {
        Self {
            started: now,
            reported: false,
            opened: None,
            complete: false,
        }
    }

    /// felix has reported.
    pub(super) fn report(&mut self) {
        self.reported = true;
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

    /// Says that the best paths are complete, once no peer is waited for any more.
    pub(super) fn settle(&mut self, waiting: bool, now: Millis, out: &mut Vec<Output>) {
        let Some(opened) = self.opened else { return };
        let over = now >= opened + DEFERRAL;
        if self.complete || waiting && !over {
            return;
        }
        if waiting {
            out.push(Output::Event(SpeakerEvent::DeferralOver));
        }
        self.complete = true;
        out.push(Output::BestComplete);
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn next_timeout(&self) -> Option<Millis> {
        match self.opened {
            None => Some(self.started + REPORT_WAIT),
            Some(opened) => (!self.complete).then_some(opened + DEFERRAL),
        }
    }
}
