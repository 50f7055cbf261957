//! Cycle after cycle: what changed since the newest point, at one instant, shipped and sealed; beside it the audit.

use bytes::Bytes;
use farshore_blocks::{ByteCount, Sequence, clock::WallTime};
use farshore_proto::v1::{self, source_message::Body};
use farshore_provider::{Accord, Capture, CaptureKind, CapturedVolume, Consistency, Outcome, Source};
use farshore_transfer::PointHead;
use tokio::time::Instant;

use super::{Engine, SessionError};
use crate::{
    convert,
    metrics::{CyclePhase, CycleResult},
    source::{
        audit::{AuditError, Occasion},
        comparison::{Comparison, Proof},
        delivery::{Delivery, DeliveryError, Lane, SealFacts, chain},
        gathering::{Meeting, Place, Wants},
        link,
        placed::PlacedCapture,
        rhythm::Rhythm,
        state::{CycleTimes, SourcePhase},
        worklist::{Purpose, Worklist},
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    Through,
    Stopped,
}

impl<S: Source> Engine<S> {
    /// Replicates until it is stopped or something fails.
    pub(super) async fn cycles(&mut self, lane: &mut Lane) -> Result<(), SessionError> {
        let mut seat = self.place.as_ref().map(Place::sit);
        let is_member = seat.is_some();
        loop {
            let began = Instant::now();
            self.show(|state| {
                state.phase = SourcePhase::Replicating;
                state.detail.clear();
            });
            let asked_at = WallTime::now();
            let backlog = self.source.backlog().await?;
            self.show(|state| state.backlog = backlog);
            // What the guest's applications still hold in memory is no backlog.
            let application = self.application_points.are_due(began);
            let wants = if backlog > ByteCount(0)
                || self.audit.has_repairs()
                || application
                || lane.volumes.leave()
            {
                Wants::Instant
            } else {
                Wants::Nothing
            };
            let meeting = match &mut seat {
                None => None,
                Some(seat) => match self.meet(lane, seat, wants).await? {
                    Some(meeting) => Some((seat, meeting)),
                    None => return Ok(()),
                },
            };
            if let Some((seat, Meeting::Together(participant))) = meeting {
                let kind = self.kind();
                self.cycle_together(lane, kind, (seat, participant)).await?;
                if application {
                    self.cycle(lane).await?;
                }
            } else if wants == Wants::Instant {
                self.cycle(lane).await?;
                if let Some((_, Meeting::Alone { why })) = meeting {
                    self.missed_group(why);
                }
            } else {
                still_valid(lane, asked_at).await?;
                if self.audit.is_due(Occasion::Idle) {
                    let before = self.newest();
                    self.audit_idle(lane).await?;
                    if is_member && self.newest() > before {
                        self.missed_group("it wrote while it was compared with its replica".to_owned());
                    }
                }
            }
            let rhythm = Rhythm {
                interval: self.assignment.interval,
                guest_cost_limit_percent: self.assignment.guest_cost_limit_percent,
            };
            let hold = self.state.borrow().last_cycle.map(|times| times.hold);
            let next = rhythm.next(began, hold.unwrap_or_default());
            if wait_until(lane, next).await? == Waited::Stopped {
                return Ok(());
            }
        }
    }

    /// One ordinary cycle: what changed since the newest point, at one instant.
    async fn cycle(&mut self, lane: &mut Lane) -> Result<(), SessionError> {
        let began = Instant::now();
        let next = self.newest().next();
        if self.application_points.are_due(began) {
            let capture = self.source.begin_application_consistent(next).await?;
            let missed = self.application_points.tried(began, &capture.consistency());
            self.show(|state| state.app_consistency_missed = missed.unwrap_or_default());
            return self.deliver(lane, capture, began).await;
        }
        let capture = self.source.begin(self.kind(), next).await?;
        self.deliver(lane, capture, began).await
    }

    /// What is to be sent again, or compared, may lie in what did not change.
    fn kind(&self) -> CaptureKind {
        if self.audit.has_repairs() || self.audit.is_due(Occasion::WithCycle) {
            CaptureKind::WholeInstant
        } else {
            CaptureKind::Instant
        }
    }

    /// Ships and seals a capture of changes, and audits what it shows besides.
    pub(super) async fn deliver(
        &mut self,
        lane: &mut Lane,
        capture: PlacedCapture<S::Capture>,
        began: Instant,
    ) -> Result<(), SessionError> {
        let base = self.state.borrow().newest;
        let mut times = CycleTimes {
            begin: began.elapsed(),
            ..CycleTimes::default()
        };
        let kind = v1::CycleKind::Delta;
        let begun = match capture.accord() {
            // Points of several VMs that share a cycle's number are of one instant.
            Some(Accord::Together(instant)) => {
                Delivery::begin_numbered(lane, (instant.0, kind), base, capture.volumes()).await
            }
            Some(Accord::Alone { .. }) | None => Delivery::begin(lane, kind, base, capture.volumes()).await,
        };
        let delivered = match begun {
            Ok(mut delivery) => self.deliver_instant(&mut delivery, &capture, &mut times).await,
            Err(error) => Err(error.into()),
        };
        if let Ok(point) = &delivered
            && self.audit.is_due(Occasion::WithCycle)
        {
            self.audit(&capture, point.sequence).await;
        }
        self.settle(capture, delivered).await?;
        times.took = began.elapsed();
        self.show(|state| {
            state.last_cycle = Some(times);
            state.backlog = ByteCount(0);
        });
        Ok(())
    }

    /// Ships and seals what the capture holds, and what the audit wants sent again.
    pub(super) async fn deliver_instant(
        &mut self,
        delivery: &mut Delivery<'_>,
        capture: &PlacedCapture<S::Capture>,
        times: &mut CycleTimes,
    ) -> Result<PointHead, SessionError> {
        delivery.tell_volumes(capture.volumes()).await?;
        let held = capture.held();
        times.hold = held;
        self.metrics.cycle_phase(CyclePhase::Pause, held);
        self.metrics.guest_pause(held);
        let (shipping, read_before) = (Instant::now(), delivery.reading());
        times.changed = if capture.knows_changes() {
            let volumes = self.audit.with_repairs(capture.volumes());
            let mut work = Worklist::new(Purpose::Changes, &volumes, &[]);
            let changed = work.data_left();
            delivery.ship(capture, &mut work, |_| {}).await?;
            changed
        } else {
            let mut work = Worklist::new(Purpose::ResyncScan, capture.volumes(), &[]);
            let candidates = work.data_left();
            let mut base = Comparison::with((&self.assignment, &self.reach), self.newest(), Proof::Noted)
                .map_err(DeliveryError::from)?
                .of_volumes(delivery.chain_volumes().sealed_places());
            delivery
                .ship_differing((capture, &mut base), &mut work, |_| {})
                .await?;
            candidates
        };
        capture.confirm().await?;
        times.read = delivery.reading().saturating_sub(read_before);
        times.send = shipping.elapsed().saturating_sub(times.read);
        self.metrics.cycle_phase(CyclePhase::Read, times.read);
        self.metrics.cycle_phase(CyclePhase::Send, times.send);
        let machine = Bytes::from(serde_json::to_vec(&self.assignment.machine)?);
        let sealing = Instant::now();
        let point = delivery
            .seal(SealFacts {
                // Whoever gives back the time that is shown of a point must get that point. Earlier is never better than the truth.
                captured_at: capture.captured_at().whole_milliseconds(),
                kind: match capture.consistency() {
                    Consistency::Application => v1::PointKind::AppConsistent,
                    Consistency::Crash { .. } => v1::PointKind::CrashConsistent,
                },
                machine,
            })
            .await?;
        times.seal = sealing.elapsed();
        self.metrics.cycle_phase(CyclePhase::Seal, times.seal);
        self.audit.repaired();
        delivery.chain_volumes().sealed(capture.volumes());
        self.show(|state| state.volumes = delivery.chain_volumes().shown());
        Ok(point)
    }

    /// Ends the capture by what became of its delivery.
    pub(super) async fn settle(
        &mut self,
        capture: PlacedCapture<S::Capture>,
        delivered: Result<PointHead, SessionError>,
    ) -> Result<(), SessionError> {
        if matches!(
            delivered,
            Err(SessionError::Delivery(DeliveryError::OutcomeUnknown(_)))
        ) {
            // Neither outcome may be assumed: left as by a crash, the capture is settled by what the target will say.
            drop(capture);
        } else {
            self.finish(capture, &delivered).await?;
        }
        let result = if delivered.is_ok() {
            CycleResult::Sealed
        } else {
            CycleResult::Failed
        };
        self.metrics.cycle_ended(self.vm(), result);
        let point = delivered?;
        self.show(|state| state.newest = Some(point));
        Ok(())
    }

    /// Ends a capture as its use ended.
    pub(super) async fn finish<T, E>(
        &mut self,
        capture: PlacedCapture<S::Capture>,
        delivered: &Result<T, E>,
    ) -> Result<(), SessionError> {
        let outcome = if delivered.is_ok() {
            Outcome::Done
        } else {
            Outcome::Failed
        };
        match self.source.finish(capture, outcome).await {
            Ok(()) => Ok(()),
            // The delivery's own failure says more; the next session cleans up what is left.
            Err(error) if delivered.is_err() => {
                tracing::warn!(
                    vm = self.vm(),
                    error = chain(&error),
                    "a capture was not ended cleanly"
                );
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Captures a VM that writes nothing, only to compare it. If it wrote meanwhile, this is a cycle like any other.
    async fn audit_idle(&mut self, lane: &mut Lane) -> Result<(), SessionError> {
        let began = Instant::now();
        let newest = self.newest();
        let capture = self
            .source
            .begin(CaptureKind::WholeInstant, newest.next())
            .await?;
        if !capture.volumes().iter().all(is_unchanged) {
            return self.deliver(lane, capture, began).await;
        }
        self.audit(&capture, newest).await;
        Ok(self.source.finish(capture, Outcome::Failed).await?)
    }

    /// Compares a range of the capture with the point that it is equal to. What fails is tried again later.
    async fn audit(&mut self, capture: &PlacedCapture<S::Capture>, point: Sequence) {
        if !capture.holds_all() {
            return;
        }
        let stop = self.stop.clone();
        let compared = tokio::select! {
            () = stop.cancelled() => return,
            compared = self.compare(capture, point) => compared,
        };
        if let Err(error) = compared {
            let error = chain(&error);
            tracing::warn!(vm = self.vm(), error, "a range was not compared with the replica");
        }
        let audit = self.audit.state();
        let before = self.state.borrow().audit.mismatches;
        let found = audit.mismatches.saturating_sub(before);
        self.metrics.audit_mismatches(self.vm(), found);
        self.show(|state| state.audit = audit);
    }

    async fn compare(
        &mut self,
        capture: &PlacedCapture<S::Capture>,
        point: Sequence,
    ) -> Result<(), AuditError> {
        let replica = match &mut self.replica {
            Some(replica) => replica,
            none => none.insert(Comparison::with(
                (&self.assignment, &self.reach),
                point,
                Proof::Read,
            )?),
        };
        self.audit.compare(capture, (point, replica)).await
    }

    pub(super) fn newest(&self) -> Sequence {
        self.state
            .borrow()
            .newest
            .map_or(Sequence(0), |point| point.sequence)
    }
}

fn is_unchanged(captured: &CapturedVolume) -> bool {
    captured.extents.is_empty()
}

/// Tells the target that nothing had changed at `valid_through`.
async fn still_valid(lane: &Lane, valid_through: WallTime) -> Result<(), SessionError> {
    let clock = lane.link.welcome.clock;
    let message = v1::StillValid {
        point: None,
        valid_through: Some(convert::time_out(valid_through)),
        clock_offset_nanoseconds: clock.offset_nanoseconds,
        clock_uncertainty_nanoseconds: u64::try_from(clock.uncertainty.as_nanos()).unwrap_or(u64::MAX),
    };
    Ok(lane.link.send(Body::StillValid(message)).await?)
}

/// Waits for the next cycle; a stream that ends meanwhile, or a fence, is noticed at once.
async fn wait_until(lane: &mut Lane, when: Instant) -> Result<Waited, SessionError> {
    tokio::select! {
        () = lane.stop.cancelled() => Ok(Waited::Stopped),
        () = tokio::time::sleep_until(when) => Ok(Waited::Through),
        body = lane.link.receive() => Err(link::unexpected(&body?, "silence").into()),
    }
}
