//! One session: the procedures of RFC 5880 section 6.8.

mod parked;

use super::packet::{Diagnostic, LENGTH, Packet, State};
use super::{Event, Micros, Settings};
use crate::fsm::Jitter;

pub use parked::Parked;

/// Nothing is sent more often before the session is up (RFC 5880 section 6.8.3), microseconds.
const SLOW: u32 = 1_000_000;

/// A poll sequence (RFC 5880 section 6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poll {
    Idle,
    Running,
    /// Values changed after packets of the running sequence had left: its answer may be one to the older values, so
    /// another sequence follows.
    Again,
}

/// What has gone through a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Packets taken.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// How many times it came up.
    pub up: u64,
    /// How many times it failed after having been up.
    pub failed: u64,
}

/// One session. Names in comments are those of RFC 5880 section 6.8.1.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) settings: Settings,
    /// bfd.LocalDiscr
    pub(super) discriminator: u32,
    /// bfd.SessionState, and when it was entered.
    pub(super) state: State,
    pub(super) since: Micros,
    /// bfd.LocalDiag
    pub(super) diagnostic: Diagnostic,
    /// bfd.RemoteSessionState, and its diagnostic.
    pub(super) remote_state: State,
    pub(super) remote_diagnostic: Diagnostic,
    /// bfd.RemoteDiscr
    pub(super) remote_discriminator: u32,
    /// bfd.DesiredMinTxInterval as it is told, and as packets are sent: a longer one waits for the end of the poll.
    desired_min_tx: u32,
    effective_tx: u32,
    /// bfd.RequiredMinRxInterval as it is told, and as the peer is judged: a shorter one waits for the end of the poll.
    required_min_rx: u32,
    effective_rx: u32,
    /// bfd.RemoteMinRxInterval, bfd.RemoteDemandMode
    remote_min_rx: u32,
    remote_demand: bool,
    /// The peer's last Desired Min TX Interval, Detect Mult and C bit.
    remote_min_tx: u32,
    remote_multiplier: u8,
    remote_independent: bool,
    poll: Poll,
    last_sent: Option<Micros>,
    next_send: Option<Micros>,
    /// When the peer counts as lost.
    detect_at: Option<Micros>,
    /// Of a session that ends: when the peer knows.
    pub(super) ends_at: Option<Micros>,
    jitter: Jitter,
    /// The entry of the monitor's queue.
    pub(super) queued: Option<Micros>,
    pub(super) counts: Counts,
}

/// What a session wants done.
#[derive(Debug, Default)]
pub(super) struct Wants {
    /// Packets, at most an answer to a poll and one that tells news.
    pub(super) send: Vec<[u8; LENGTH]>,
    pub(super) event: Option<Event>,
}

impl Session {
    pub(super) fn new(settings: Settings, discriminator: u32, seed: u64, now: Micros) -> Self {
        Self {
            discriminator,
            state: State::Down,
            since: now,
            diagnostic: Diagnostic::NONE,
            remote_state: State::Down,
            remote_diagnostic: Diagnostic::NONE,
            remote_discriminator: 0,
            desired_min_tx: settings.transmit.max(SLOW),
            effective_tx: settings.transmit.max(SLOW),
            required_min_rx: settings.receive,
            effective_rx: settings.receive,
            remote_min_rx: 1,
            remote_demand: false,
            remote_min_tx: 0,
            remote_multiplier: 0,
            remote_independent: false,
            poll: Poll::Idle,
            last_sent: None,
            // Peers that are configured together are not all greeted at once.
            next_send: Some(now + seed % 100_000),
            detect_at: None,
            ends_at: None,
            jitter: Jitter::new(seed),
            queued: None,
            counts: Counts::default(),
            settings,
        }
    }

    /// When [`tick`](Self::tick) is due.
    pub(super) fn next_timeout(&self) -> Option<Micros> {
        [self.next_send, self.detect_at, self.ends_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time between packets sent, before jitter, microseconds.
    pub(super) fn transmit_interval(&self) -> u32 {
        self.effective_tx.max(self.remote_min_rx)
    }

    /// The peer is lost when nothing comes for so long, microseconds; 0: nothing is known of it (RFC 5880 section 6.8.4).
    pub(super) fn detection_time(&self) -> Micros {
        Micros::from(self.remote_multiplier)
            * Micros::from(self.effective_rx.max(self.remote_min_tx))
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Micros, wants: &mut Wants) {
        if self.detect_at.is_some_and(|at| at <= now) {
            // Section 6.8.1: nothing of what the peer said counts any longer.
            self.detect_at = None;
            self.remote_discriminator = 0;
            self.remote_state = State::Down;
            self.remote_min_rx = 1;
            self.remote_demand = false;
            if matches!(self.state, State::Init | State::Up) {
                self.leave(Diagnostic::TIME_EXPIRED, false, now, wants);
                self.send_news(now, wants);
            } else {
                self.reschedule(now);
            }
        }
        if self.next_send.is_some_and(|at| at <= now) {
            self.send_news(now, wants);
        }
    }

    /// A packet that is the session's has come (RFC 5880 section 6.8.6, from the reading of the discriminator on).
    pub(super) fn receive(&mut self, packet: &Packet, now: Micros, wants: &mut Wants) {
        let before = (self.transmit_interval(), self.may_send());
        self.remote_discriminator = packet.my_discriminator;
        self.remote_state = packet.state;
        self.remote_diagnostic = packet.diagnostic;
        self.remote_demand = packet.demand;
        self.remote_min_rx = packet.required_min_rx;
        self.remote_min_tx = packet.desired_min_tx;
        self.remote_multiplier = packet.multiplier;
        self.remote_independent = packet.independent;
        if packet.is_final {
            self.poll_answered();
        }
        if self.state == State::AdminDown {
            return;
        }
        self.counts.received += 1;
        let changed = match (self.state, packet.state) {
            (State::Init | State::Up, State::AdminDown) => {
                self.leave(Diagnostic::NEIGHBOR_DOWN, true, now, wants);
                true
            }
            (State::Up, State::Down) => {
                self.leave(Diagnostic::NEIGHBOR_DOWN, false, now, wants);
                true
            }
            (State::Down, State::Down) => {
                self.enter(State::Init, now);
                true
            }
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.enter_up(now, wants);
                true
            }
            _ => false,
        };
        // Section 6.8.6: only now, so that it holds for the values after the packet.
        self.detect_at = Some(now + self.detection_time());
        if packet.poll {
            self.send(false, true, wants);
        }
        if changed {
            self.send_news(now, wants);
        } else if before != (self.transmit_interval(), self.may_send()) {
            self.reschedule(now);
        }
    }

    /// Takes other settings; the session goes on.
    pub(super) fn change(&mut self, settings: Settings, now: Micros, wants: &mut Wants) {
        let news = self.settings.multiplier != settings.multiplier;
        self.settings = settings;
        let wanted = match self.state {
            State::Up => self.settings.transmit,
            _ => self.settings.transmit.max(SLOW),
        };
        let polls = self.desire(wanted);
        let polls = self.require(self.settings.receive) || polls;
        if polls {
            self.start_poll();
        }
        // Section 6.8.7: what differs from the packet before is told at once.
        if news || polls {
            self.send_news(now, wants);
        } else {
            self.reschedule(now);
        }
    }

    /// Ends the session on purpose: the peer is told for as long as it takes to be sure that it knows (section 6.8.16).
    pub(super) fn end(&mut self, now: Micros, wants: &mut Wants) {
        let unheard = self.remote_discriminator == 0;
        self.diagnostic = Diagnostic::ADMIN_DOWN;
        self.poll = Poll::Idle;
        self.detect_at = None;
        self.enter(State::AdminDown, now);
        let detection =
            Micros::from(self.settings.multiplier) * Micros::from(self.transmit_interval());
        self.ends_at = Some(if unheard { now } else { now + detection });
        if !unheard {
            self.send_news(now, wants);
        }
    }

    /// The last packet's poll has been answered, if there was one.
    fn poll_answered(&mut self) {
        match self.poll {
            Poll::Idle => {}
            Poll::Again => self.poll = Poll::Running,
            Poll::Running => {
                self.poll = Poll::Idle;
                self.effective_tx = self.desired_min_tx;
                self.effective_rx = self.required_min_rx;
            }
        }
    }

    fn start_poll(&mut self) {
        if self.state == State::Up {
            self.poll = match self.poll {
                Poll::Idle => Poll::Running,
                Poll::Running | Poll::Again => Poll::Again,
            };
        }
    }

    /// Sets bfd.DesiredMinTxInterval (section 6.8.3); whether it differs.
    fn desire(&mut self, interval: u32) -> bool {
        let differs = self.desired_min_tx != interval;
        self.desired_min_tx = interval;
        // In the state Up, the peer has to know of a longer interval before it counts on it.
        if self.state != State::Up || interval < self.effective_tx {
            self.effective_tx = interval;
        }
        differs
    }

    /// Sets bfd.RequiredMinRxInterval (section 6.8.3); whether it differs.
    fn require(&mut self, interval: u32) -> bool {
        let differs = self.required_min_rx != interval;
        self.required_min_rx = interval;
        // In the state Up, the peer has to know of a shorter interval before it is held to it.
        if self.state != State::Up || interval > self.effective_rx {
            self.effective_rx = interval;
        }
        differs
    }

    fn enter(&mut self, state: State, now: Micros) {
        self.state = state;
        self.since = now;
        if state != State::Up {
            self.poll = Poll::Idle;
            self.desire(self.settings.transmit.max(SLOW));
            self.require(self.settings.receive);
        }
    }

    fn enter_up(&mut self, now: Micros, wants: &mut Wants) {
        self.diagnostic = Diagnostic::NONE;
        self.enter(State::Up, now);
        self.counts.up += 1;
        wants.event = Some(Event::Up);
        if self.desire(self.settings.transmit) {
            self.start_poll();
        }
    }

    /// Goes down from Init or Up.
    fn leave(&mut self, diagnostic: Diagnostic, on_purpose: bool, now: Micros, wants: &mut Wants) {
        let was_up = self.state == State::Up;
        self.diagnostic = diagnostic;
        self.enter(State::Down, now);
        if was_up {
            self.counts.failed += u64::from(!on_purpose);
            wants.event = Some(if on_purpose {
                Event::AdminDown
            } else {
                Event::Down {
                    diagnostic,
                    independent: self.remote_independent,
                }
            });
        }
    }

    /// Whether packets are sent periodically (section 6.8.7).
    fn may_send(&self) -> bool {
        let demanded =
            self.remote_demand && self.state == State::Up && self.remote_state == State::Up;
        self.remote_min_rx != 0 && (!demanded || self.poll != Poll::Idle)
    }

    /// Sends a packet now, and the next one an interval later.
    fn send_news(&mut self, now: Micros, wants: &mut Wants) {
        self.send(self.poll != Poll::Idle, false, wants);
        self.last_sent = Some(now);
        self.next_send = None;
        self.reschedule(now);
    }

    /// Places the next packet an interval after the last one.
    fn reschedule(&mut self, now: Micros) {
        let Some(last) = self.last_sent else {
            return;
        };
        self.next_send = if self.may_send() {
            Some((last + self.jittered()).max(now))
        } else {
            None
        };
    }

    /// The interval, shortened by a random part: up to 25 %, of which 10 % at least if one missing packet is a failure
    /// (section 6.8.7).
    fn jittered(&mut self) -> Micros {
        let interval = Micros::from(self.transmit_interval());
        if self.settings.multiplier > 1 {
            return self.jitter.shorten(interval);
        }
        let least = interval.div_ceil(10);
        interval - least - self.jitter.next_u64() % (interval / 4 - least.min(interval / 4) + 1)
    }

    fn send(&mut self, poll: bool, is_final: bool, wants: &mut Wants) {
        self.counts.sent += 1;
        wants.send.push(self.packet(poll, is_final).encode());
    }

    fn packet(&self, poll: bool, is_final: bool) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll,
            is_final,
            independent: false,
            demand: false,
            multiplier: self.settings.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote_discriminator,
            desired_min_tx: self.desired_min_tx,
            required_min_rx: self.required_min_rx,
            required_min_echo_rx: 0,
        }
    }
}
