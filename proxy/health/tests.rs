use proptest::prelude::*;

use super::Failure::{Connect, Protocol, Status, Timeout};
use super::Signal::{CallFailed, CallOk, ProbeCredentials, ProbeFailed, ProbeOk};
use super::State::{Degraded, Draining, Healthy, Unhealthy, Unknown};
use super::*;

fn thresholds(rise: u32, fall: u32) -> Thresholds {
    let mut thresholds = Thresholds::default();
    (thresholds.rise, thresholds.fall) = (rise, fall);
    (thresholds.interval, thresholds.max_backoff) = (Duration::from_secs(10), Duration::from_secs(60));
    thresholds
}

/// A health that went through these signals, with thresholds 2 and 3, and the time it was made.
fn after(signals: &[Signal]) -> (Health, Instant) {
    let start = Instant::now();
    let health = Health::new(thresholds(2, 3), start);
    for signal in signals {
        health.observe(*signal, start);
    }
    (health, start)
}

/// What led somewhere, what came then, and the state after that.
const TABLE: &[(&[Signal], Signal, State)] = &[
    // Unknown until the first answer or the third failure.
    (&[], ProbeOk, Healthy),
    (&[], CallOk, Healthy),
    (&[], ProbeCredentials, Degraded),
    (&[], ProbeFailed(Connect), Unknown),
    (&[ProbeFailed(Connect)], CallFailed(Timeout), Unknown),
    (&[ProbeFailed(Connect), CallFailed(Timeout)], ProbeFailed(Protocol), Unhealthy),
    (&[ProbeFailed(Connect), ProbeFailed(Connect)], ProbeOk, Healthy),
    // Healthy until the first failure.
    (&[ProbeOk], ProbeOk, Healthy),
    (&[ProbeOk], CallOk, Healthy),
    (&[ProbeOk], ProbeFailed(Timeout), Degraded),
    (&[ProbeOk], CallFailed(Status), Degraded),
    (&[ProbeOk], ProbeCredentials, Degraded),
    // Degraded by failures: any success heals and forgets them.
    (&[ProbeOk, CallFailed(Status)], CallOk, Healthy),
    (&[ProbeOk, CallFailed(Status)], ProbeOk, Healthy),
    (&[ProbeOk, CallFailed(Status)], CallFailed(Status), Degraded),
    (&[ProbeOk, CallFailed(Status), ProbeFailed(Status)], CallFailed(Connect), Unhealthy),
    (&[ProbeOk, CallFailed(Status), CallFailed(Status), CallOk], CallFailed(Status), Degraded),
    (&[ProbeOk, CallFailed(Status), CallFailed(Status), ProbeOk, CallFailed(Status)], CallFailed(Status), Degraded),
    // Degraded by credentials: alive, and only a good probe heals.
    (&[ProbeCredentials], CallOk, Degraded),
    (&[ProbeCredentials], ProbeCredentials, Degraded),
    (&[ProbeCredentials], ProbeOk, Healthy),
    (&[ProbeCredentials, CallFailed(Status)], CallOk, Degraded),
    (&[ProbeCredentials, ProbeFailed(Connect), ProbeFailed(Connect)], ProbeCredentials, Degraded),
    (&[ProbeCredentials, ProbeFailed(Connect), ProbeFailed(Connect)], ProbeFailed(Connect), Unhealthy),
    (&[CallFailed(Status), CallFailed(Status), ProbeCredentials], CallFailed(Status), Degraded),
    // Unhealthy until two good probes in a row, whatever late calls tell.
    (&[CallFailed(Connect), CallFailed(Connect), CallFailed(Connect)], CallOk, Unhealthy),
    (&[CallFailed(Connect), CallFailed(Connect), CallFailed(Connect)], ProbeOk, Unhealthy),
    (&[CallFailed(Connect), CallFailed(Connect), CallFailed(Connect), ProbeOk], ProbeOk, Healthy),
    (&[CallFailed(Connect), CallFailed(Connect), CallFailed(Connect), ProbeOk], ProbeCredentials, Degraded),
    (&[CallFailed(Connect), CallFailed(Connect), CallFailed(Connect), ProbeOk, CallFailed(Timeout)], ProbeOk, Healthy),
    (&[CallFailed(Connect), CallFailed(Connect), CallFailed(Connect), ProbeOk, CallOk], CallOk, Unhealthy),
    (
        &[CallFailed(Connect), CallFailed(Connect), CallFailed(Connect), ProbeOk, ProbeFailed(Timeout)],
        ProbeOk,
        Unhealthy,
    ),
];

#[test]
fn goes_where_the_table_says() {
    for (before, signal, expected) in TABLE {
        let (health, now) = after(before);
        let from = health.state();

        let transition = health.observe(*signal, now);

        assert_eq!(health.state(), *expected, "{before:?} {signal:?}");
        assert_eq!(transition.map(|it| (it.from, it.to)), (from != *expected).then_some((from, *expected)));
    }
}

#[test]
fn tells_why_it_changed() {
    let reason = |before: &[Signal], signal| {
        let (health, now) = after(before);
        health.observe(signal, now).unwrap().reason
    };

    assert_eq!(reason(&[], ProbeOk), Reason::Answered);
    assert_eq!(reason(&[ProbeOk], ProbeCredentials), Reason::Credentials);
    assert_eq!(reason(&[ProbeOk], CallFailed(Timeout)), Reason::Failed(Timeout));
}

#[test]
fn drains_for_good() {
    let (health, now) = after(&[ProbeOk]);
    let left = Transition { from: Healthy, to: Draining, reason: Reason::Removed };

    assert_eq!(health.drain(now), Some(left));
    assert_eq!(health.drain(now), None);
    for signal in [ProbeOk, CallOk, ProbeCredentials, ProbeFailed(Connect), CallFailed(Status), CallFailed(Status)] {
        assert_eq!(health.observe(signal, now), None);
    }
    assert_eq!(health.state(), Draining);
}

#[test]
fn keeps_calls_from_unhealthy_backends_only() {
    let down = [ProbeFailed(Connect); 3];

    assert!(after(&[]).0.allows_calls());
    assert!(after(&down[1..]).0.allows_calls());
    assert!(after(&[ProbeCredentials]).0.allows_calls());
    assert!(!after(&down).0.allows_calls());
}

#[test]
fn remembers_when_it_changed_and_what_failed() {
    let (health, start) = after(&[]);
    let at = |seconds| start + Duration::from_secs(seconds);

    health.observe(ProbeOk, at(1));
    health.observe(CallOk, at(2));
    assert_eq!((health.since(), health.last_failure(), health.failures()), (at(1), None, 0));

    health.observe(CallFailed(Status), at(3));
    health.observe(ProbeFailed(Timeout), at(4));
    assert_eq!((health.since(), health.last_failure(), health.failures()), (at(3), Some((Timeout, at(4))), 2));

    health.observe(ProbeCredentials, at(5));
    assert_eq!((health.since(), health.failures(), health.refuses_credentials()), (at(3), 0, true));
}

#[test]
fn keeps_its_state_under_new_thresholds() {
    let (health, now) = after(&[ProbeOk, CallFailed(Status), CallFailed(Status)]);

    health.reconfigure(thresholds(1, 5));

    assert_eq!((health.state(), health.failures()), (Degraded, 2));
    health.observe(CallFailed(Status), now);
    assert_eq!(health.state(), Degraded);
    health.reconfigure(thresholds(1, 2));
    assert_eq!(health.state(), Degraded);
    health.observe(CallFailed(Status), now);
    assert_eq!(health.state(), Unhealthy);
    health.observe(ProbeOk, now);
    assert_eq!(health.state(), Healthy);
}

#[test]
fn probes_an_unhealthy_backend_ever_more_seldom() {
    let (health, now) = after(&[ProbeFailed(Connect); 3]);
    let mut pauses = Vec::new();

    for _ in 0..5 {
        pauses.push(health.next_probe(0.5).as_secs());
        health.observe(ProbeFailed(Connect), now);
    }

    assert_eq!(pauses, [10, 20, 40, 60, 60]);
    health.observe(ProbeOk, now);
    assert_eq!((health.state(), health.next_probe(0.5)), (Unhealthy, Duration::from_secs(10)));
    health.observe(ProbeFailed(Connect), now);
    assert_eq!(health.next_probe(0.5), Duration::from_secs(20));
}

#[test]
fn spreads_probes_by_a_tenth_either_way() {
    let (health, _) = after(&[ProbeOk]);

    assert_eq!(health.next_probe(0.0), Duration::from_secs(9));
    assert_eq!(health.next_probe(0.5), Duration::from_secs(10));
    assert_eq!(health.next_probe(1.0), Duration::from_secs(11));
    assert_eq!(health.next_probe(f64::NAN), Duration::from_secs(10));
    assert_eq!(health.next_probe(f64::INFINITY), Duration::from_secs(10));
    assert_eq!(health.next_probe(-7.0), Duration::from_secs(9));
}

#[test]
fn survives_any_thresholds() {
    let mut extreme = thresholds(0, 0);
    (extreme.interval, extreme.max_backoff) = (Duration::MAX, Duration::MAX);
    let health = Health::new(extreme, Instant::now());

    for _ in 0..40 {
        health.observe(ProbeFailed(Connect), Instant::now());
        assert!(health.next_probe(1.0) > Duration::ZERO);
    }
    health.observe(ProbeOk, Instant::now());
    assert_eq!(health.state(), Healthy);
}

#[test]
fn names_each_state_once() {
    assert!(State::ALL.map(State::as_str).is_sorted_by(|one, next| one < next));
    assert_eq!(State::ALL.map(|state| state as u8), [0, 1, 2, 3, 4]);
}

fn signals() -> impl Strategy<Value = Vec<Signal>> {
    let failure = prop::sample::select(vec![Connect, Protocol, Status, Timeout]);
    let signal = prop_oneof![
        Just(CallOk),
        Just(ProbeCredentials),
        Just(ProbeOk),
        failure.clone().prop_map(CallFailed),
        failure.prop_map(ProbeFailed),
    ];
    prop::collection::vec(signal, 0..60)
}

proptest! {
    #[test]
    fn keeps_its_promises(rise in 1..5_u32, fall in 1..5_u32, signals in signals(), random in 0.0..1.0_f64) {
        let now = Instant::now();
        let health = Health::new(thresholds(rise, fall), now);
        let (mut failures, mut good_probes, mut last_probe_good) = (0, 0, true);

        for signal in signals {
            let before = health.state();
            match signal {
                ProbeOk | ProbeCredentials => (failures, good_probes) = (0, good_probes + 1),
                CallOk => failures = 0,
                ProbeFailed(_) => (failures, good_probes) = (failures + 1, 0),
                CallFailed(_) => failures += 1,
            }
            if matches!(signal, ProbeOk | ProbeCredentials) {
                last_probe_good = signal == ProbeOk;
            }
            let transition = health.observe(signal, now);
            let state = health.state();

            prop_assert_eq!(transition.is_some(), before != state);
            prop_assert!(state != Draining);
            if state == Unhealthy && before != Unhealthy {
                prop_assert!(failures >= fall);
                good_probes = 0;
            }
            if before == Unhealthy && state != Unhealthy {
                prop_assert!(good_probes >= rise);
            }
            if state == Healthy {
                prop_assert!(failures == 0 && last_probe_good);
            }
            let pause = health.next_probe(random);
            prop_assert!(pause >= Duration::from_secs(9) && pause <= Duration::from_secs(60));
        }

        for _ in 0..rise {
            health.observe(ProbeOk, now);
        }
        prop_assert_eq!(health.state(), Healthy);
    }
}
