use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use governor::clock::FakeRelativeClock;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

type Fake = Limits<FakeRelativeClock>;

fn some(number: u32) -> Option<NonZeroU32> {
    Some(NonZeroU32::new(number).unwrap())
}

/// A limit on nothing yet, for everyone together.
fn limit(name: &str) -> Terms {
    Terms {
        name: name.to_owned(),
        tools: Vec::new(),
        backends: Vec::new(),
        key: Key::Global,
        rate: None,
        concurrency: None,
        refusal: Refusal::ToolError,
        max_keys: 1000,
    }
}

/// `count/s` with this burst.
fn rate(name: &str, count: u32, burst: u32) -> Terms {
    let quota = rate::quota(some(count).unwrap(), SECOND, some(burst).unwrap());
    Terms { rate: Some(quota), ..limit(name) }
}

fn concurrency(name: &str, cap: u32) -> Terms {
    Terms { concurrency: some(cap), ..limit(name) }
}

fn build<const N: usize>(terms: [Terms; N], clock: &FakeRelativeClock) -> Fake {
    Limits::with_clock(terms.into_iter(), None, clock)
}

fn session(session: u128) -> Caller {
    Caller { session: Some(session), ip: IpAddr::from([127, 0, 0, 1]) }
}

fn address(ip: &str) -> Caller {
    Caller { session: None, ip: ip.parse().unwrap() }
}

/// How many calls a caller gets through before the first refusal, at most 100.
fn burst(limits: &Fake, caller: &Caller) -> usize {
    (0..100).take_while(|_| admit(limits.rules(), caller).is_ok()).count()
}

fn refused(limits: &Fake, caller: &Caller) -> (String, ExceededKind, Duration) {
    let exceeded = admit(limits.rules(), caller).unwrap_err();
    (exceeded.rule.name().to_owned(), exceeded.kind, exceeded.retry_after)
}

#[test]
fn lets_everything_through_when_no_rule_covers_it() {
    assert!(admit::<DefaultClock>(&[], &session(1)).is_ok());
}

#[test]
fn lets_a_burst_through_and_then_the_rate() {
    let clock = FakeRelativeClock::default();
    let limits = build([rate("r", 20, 40)], &clock);

    assert_eq!(burst(&limits, &session(1)), 40);
    assert_eq!(refused(&limits, &session(1)), ("r".to_owned(), ExceededKind::Rate, Duration::from_millis(50)));
    clock.advance(Duration::from_millis(20));
    assert_eq!(refused(&limits, &session(1)).2, Duration::from_millis(30));
    clock.advance(Duration::from_millis(30));
    assert_eq!(burst(&limits, &session(1)), 1);
    clock.advance(SECOND);
    assert_eq!(burst(&limits, &session(1)), 20);
    clock.advance(100 * SECOND);
    assert_eq!(burst(&limits, &session(1)), 40);
}

#[test]
fn does_not_charge_any_limit_when_one_refuses() {
    let (wide, narrow) = (rate("wide", 1, 10), rate("narrow", 1, 2));
    for terms in [[wide.clone(), narrow.clone()], [narrow, wide]] {
        let limits = build(terms, &FakeRelativeClock::default());
        let wide: Vec<_> = limits.rules().iter().filter(|rule| rule.name() == "wide").cloned().collect();

        assert_eq!(burst(&limits, &session(1)), 2);
        for _ in 0..50 {
            assert_eq!(refused(&limits, &session(1)).0, "narrow");
        }

        assert_eq!((0..100).take_while(|_| admit(&wide, &session(1)).is_ok()).count(), 8);
    }
}

#[test]
fn takes_no_slot_when_a_rate_refuses_and_no_token_when_slots_are_out() {
    let (slots, tokens) = (concurrency("slots", 2), rate("tokens", 1, 3));
    for terms in [[slots.clone(), tokens.clone()], [tokens, slots]] {
        let limits = build(terms, &FakeRelativeClock::default());

        let held = [admit(limits.rules(), &session(1)).unwrap(), admit(limits.rules(), &session(1)).unwrap()];
        for _ in 0..50 {
            assert_eq!(refused(&limits, &session(1)), ("slots".to_owned(), ExceededKind::Concurrency, SECOND));
        }
        drop(held);

        assert_eq!(burst(&limits, &session(1)), 1);
        assert_eq!(refused(&limits, &session(1)).0, "tokens");
        let slots: Vec<_> = limits.rules().iter().filter(|rule| rule.name() == "slots").cloned().collect();
        let _held = [admit(&slots, &session(1)).unwrap(), admit(&slots, &session(1)).unwrap()];
        assert!(admit(&slots, &session(1)).is_err());
    }
}

#[test]
fn takes_nothing_from_a_rule_of_rate_and_concurrency_unless_both_agree() {
    let clock = FakeRelativeClock::default();
    let limits = build([Terms { concurrency: some(1), ..rate("both", 1, 2) }], &clock);

    let held = admit(limits.rules(), &session(1)).unwrap();
    assert_eq!(refused(&limits, &session(1)).1, ExceededKind::Concurrency);
    drop(held);
    assert_eq!(burst(&limits, &session(1)), 1);
    assert_eq!(refused(&limits, &session(1)).1, ExceededKind::Rate);
    clock.advance(SECOND);
    assert_eq!(burst(&limits, &session(1)), 1);
}

#[test]
fn reports_the_refusal_that_lasts_longest() {
    let minute = Terms {
        rate: Some(rate::quota(NonZeroU32::MIN, 60 * SECOND, NonZeroU32::MIN)),
        concurrency: some(1),
        ..limit("minute")
    };
    let clock = FakeRelativeClock::default();
    let limits = build([rate("second", 1, 1), minute, concurrency("slots", 1)], &clock);
    let _held = admit(limits.rules(), &session(1)).unwrap();

    assert_eq!(refused(&limits, &session(1)), ("minute".to_owned(), ExceededKind::Rate, 60 * SECOND));
    clock.advance(60 * SECOND - Duration::from_millis(1));
    assert_eq!(refused(&limits, &session(1)).1, ExceededKind::Concurrency);
}

#[test]
fn counts_each_key_apart() {
    let by = |key| build([Terms { key, ..rate("r", 1, 3) }], &FakeRelativeClock::default());
    let spent = |limits: Fake, first: &Caller, second: &Caller| (burst(&limits, first), burst(&limits, second));

    assert_eq!(spent(by(Key::Global), &session(1), &session(2)), (3, 0));
    assert_eq!(spent(by(Key::Session), &session(1), &session(2)), (3, 3));
    assert_eq!(spent(by(Key::Session), &session(1), &address("127.0.0.1")), (3, 3));
    assert_eq!(spent(by(Key::Session), &address("10.0.0.1"), &address("10.0.0.1")), (3, 0));
    assert_eq!(spent(by(Key::Ip), &session(1), &session(2)), (3, 0));
    assert_eq!(spent(by(Key::Ip), &address("10.0.0.1"), &address("10.0.0.2")), (3, 3));
}

#[test]
fn counts_ipv6_by_network_and_mapped_ipv4_as_ipv4() {
    let limits = build([Terms { key: Key::Ip, ..rate("r", 1, 3) }], &FakeRelativeClock::default());

    assert_eq!(burst(&limits, &address("2001:db8:1:2::1")), 3);
    assert_eq!(burst(&limits, &address("2001:db8:1:2:ffff:ffff:ffff:ffff")), 0);
    assert_eq!(burst(&limits, &address("2001:db8:1:3::1")), 3);
    assert_eq!(burst(&limits, &address("10.0.0.1")), 3);
    assert_eq!(burst(&limits, &address("::ffff:10.0.0.1")), 0);
    assert_eq!(burst(&limits, &address("::ffff:10.0.0.2")), 3);
    assert_eq!(limits.rules()[0].keys(), 4);
}

#[test]
fn counts_keys_past_the_cap_together() {
    let clock = FakeRelativeClock::default();
    let limits = build([Terms { key: Key::Session, max_keys: 2, ..rate("r", 1, 3) }], &clock);

    assert_eq!([1, 2, 3, 4].map(|key| burst(&limits, &session(key))), [3, 3, 3, 0]);
    for key in 5..1000 {
        assert_eq!(burst(&limits, &session(key)), 0);
    }

    assert_eq!(limits.rules()[0].keys(), 3);
}

#[test]
fn counts_slots_of_keys_past_the_cap_together() {
    let clock = FakeRelativeClock::default();
    let limits = build([Terms { key: Key::Session, max_keys: 2, ..concurrency("c", 2) }], &clock);
    let enter = |key| admit(limits.rules(), &session(key));

    let (first, second) = ([enter(1), enter(1)], enter(2));
    let rest = [enter(3).unwrap(), enter(4).unwrap()];
    assert!(enter(3).is_err() && enter(5).is_err() && enter(1).is_err());
    assert!(enter(2).is_ok());
    assert_eq!(limits.rules()[0].keys(), 3);

    drop(rest);
    assert!(enter(5).is_ok());
    drop((first, second));
    assert_eq!(limits.rules()[0].keys(), 0);
}

#[test]
fn lets_one_cell_serve_all_when_no_key_may_be_kept() {
    let clock = FakeRelativeClock::default();
    let limits = build([Terms { key: Key::Session, max_keys: 0, ..rate("r", 1, 3) }], &clock);

    assert_eq!([1, 2].map(|key| burst(&limits, &session(key))), [3, 0]);
}

#[test]
fn sweeps_keys_that_hold_nothing_and_no_others() {
    let clock = FakeRelativeClock::default();
    let limits = build([Terms { key: Key::Session, max_keys: 100, ..rate("r", 1, 3) }], &clock);
    for key in 0..50 {
        assert!(admit(limits.rules(), &session(key)).is_ok());
    }
    assert_eq!(burst(&limits, &session(50)), 3);

    clock.advance(2 * SECOND);
    limits.sweep();

    assert_eq!(limits.rules()[0].keys(), 1);
    assert_eq!(burst(&limits, &session(50)), 2);
    clock.advance(10 * SECOND);
    limits.sweep();
    assert_eq!(limits.rules()[0].keys(), 0);
    assert_eq!(burst(&limits, &session(50)), 3);
}

#[test]
fn makes_room_for_new_keys_by_sweeping() {
    let clock = FakeRelativeClock::default();
    let limits = build([Terms { key: Key::Session, max_keys: 2, ..rate("r", 1, 1) }], &clock);
    assert_eq!([1, 2, 3, 4].map(|key| burst(&limits, &session(key))), [1, 1, 1, 0]);

    clock.advance(2 * SECOND);
    limits.sweep();

    assert_eq!([5, 6, 7, 8].map(|key| burst(&limits, &session(key))), [1, 1, 1, 0]);
}

#[test]
fn gives_slots_back_when_a_permit_is_dropped() {
    let limits = build([concurrency("c", 2), concurrency("d", 3)], &FakeRelativeClock::default());

    let held = [admit(limits.rules(), &session(1)).unwrap(), admit(limits.rules(), &session(2)).unwrap()];
    assert_eq!(refused(&limits, &session(3)), ("c".to_owned(), ExceededKind::Concurrency, CONCURRENCY_RETRY));
    assert!(admit(&limits.rules()[1..], &session(3)).is_ok());
    drop(held);

    assert_eq!(limits.rules()[0].keys() + limits.rules()[1].keys(), 0);
    assert!(admit(limits.rules(), &session(3)).is_ok());
}

#[test]
fn keeps_cells_over_a_rebuild_when_the_rule_counts_the_same() {
    let clock = FakeRelativeClock::default();
    let rebuilt = |change: fn(Terms) -> Terms| {
        let terms = Terms { concurrency: some(100), ..rate("r", 1, 5) };
        let before = build([limit("other"), terms.clone()], &clock);
        let held = admit(&before.rules()[1..], &session(1)).unwrap();
        let after = Limits::with_clock([change(terms)].into_iter(), Some(&before), &clock);
        drop(before);
        let (left, keys) = (burst(&after, &session(1)), after.rules()[0].shared.slots.keys());
        drop(held);
        (left, keys)
    };

    assert_eq!(rebuilt(|terms| terms), (4, 1));
    assert_eq!(rebuilt(|terms| Terms { refusal: Refusal::Http, ..terms }), (4, 1));
    assert_eq!(rebuilt(|terms| Terms { concurrency: some(50), ..terms }), (4, 1));
    assert_eq!(rebuilt(|terms| Terms { rate: rate("", 1, 6).rate, ..terms }), (6, 1));
    assert_eq!(rebuilt(|terms| Terms { max_keys: 999, ..terms }), (5, 1));
    assert_eq!(rebuilt(|terms| Terms { name: "s".to_owned(), ..terms }), (5, 0));
    assert_eq!(rebuilt(|terms| Terms { key: Key::Ip, ..terms }), (5, 0));
}

#[test]
fn counts_calls_of_the_old_snapshot_against_a_new_cap() {
    let clock = FakeRelativeClock::default();
    let before = build([concurrency("c", 4)], &clock);
    let held: Vec<_> = (0..4).map(|_| admit(before.rules(), &session(1)).unwrap()).collect();

    let after = Limits::with_clock([concurrency("c", 2)].into_iter(), Some(&before), &clock);

    assert!(admit(after.rules(), &session(1)).is_err());
    drop(held);
    let _held = [admit(after.rules(), &session(1)).unwrap(), admit(before.rules(), &session(1)).unwrap()];
    assert!(admit(after.rules(), &session(1)).is_err());
}

#[test]
fn survives_any_rate() {
    let caller = session(1);
    for count in [1, 7, u32::MAX] {
        for per in [Duration::ZERO, Duration::from_nanos(1), SECOND, 86_400 * SECOND, Duration::MAX] {
            for burst in [1, 7, u32::MAX] {
                let clock = FakeRelativeClock::default();
                let quota = rate::quota(some(count).unwrap(), per, some(burst).unwrap());
                let limits = build([Terms { rate: Some(quota), ..limit("r") }], &clock);

                assert!(admit(limits.rules(), &caller).is_ok());
                for _ in 0..10 {
                    clock.advance(86_400 * SECOND);
                    drop(admit(limits.rules(), &caller));
                    limits.sweep();
                }
            }
        }
    }
}

#[test]
fn never_exceeds_a_cap_from_many_threads() {
    let limits = build([concurrency("all", 5), concurrency("too", 7)], &FakeRelativeClock::default());
    let (inside, most, admitted) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let start = Barrier::new(8);
    let reversed: Vec<_> = limits.rules().iter().rev().cloned().collect();
    let work = |rules: &[_]| {
        start.wait();
        for _ in 0..2000 {
            let Ok(permit) = admit(rules, &session(1)) else { continue };
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            admitted.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
            inside.fetch_sub(1, Ordering::SeqCst);
            drop(permit);
        }
    };

    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| work(limits.rules()));
            scope.spawn(|| work(&reversed));
        }
    });

    assert!(most.into_inner() <= 5);
    assert!(admitted.into_inner() >= 2000);
    assert_eq!(limits.rules().iter().map(|rule| rule.keys()).sum::<usize>(), 0);
}

#[test]
fn charges_exactly_what_it_admits_from_many_threads() {
    let limits = build([rate("a", 1, 3000), rate("b", 1, 2000)], &FakeRelativeClock::default());
    let (both, only_a) = (AtomicU32::new(0), AtomicU32::new(0));
    let start = Barrier::new(4);
    let work = |rules: &[_], admitted: &AtomicU32| {
        start.wait();
        for _ in 0..2000 {
            admitted.fetch_add(u32::from(admit(rules, &session(1)).is_ok()), Ordering::SeqCst);
        }
    };

    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| work(limits.rules(), &both));
            scope.spawn(|| work(&limits.rules()[..1], &only_a));
        }
    });

    // What the calls that `b` refused would have burnt of `a` is missing from neither.
    let (both, only_a) = (both.into_inner(), only_a.into_inner());
    let left = |rules: &[_]| (0..3000).take_while(|_| admit(rules, &session(1)).is_ok()).count();
    assert!(both <= 2000 && both + only_a <= 3000);
    assert_eq!(left(&limits.rules()[..1]), usize::try_from(3000 - both - only_a).unwrap());
    assert_eq!(left(&limits.rules()[1..]), usize::try_from(2000 - both).unwrap());
}

/// A limit as one would explain it: a bucket of tokens for each key, in nanoseconds of rate, and calls under way.
struct Naive {
    period: u128,
    burst: u128,
    cap: usize,
    by_session: bool,
    buckets: HashMap<u128, (u128, u128)>,
    under_way: HashMap<u128, usize>,
}

impl Naive {
    fn new(terms: &Terms) -> Self {
        let quota = terms.rate.unwrap();
        Self {
            period: quota.replenish_interval().as_nanos(),
            burst: u128::from(quota.burst_size().get()),
            cap: usize::try_from(terms.concurrency.unwrap().get()).unwrap(),
            by_session: terms.key == Key::Session,
            buckets: HashMap::new(),
            under_way: HashMap::new(),
        }
    }

    fn key(&self, session: u128) -> u128 {
        if self.by_session { session } else { 0 }
    }

    fn level(&self, session: u128, now: u128) -> u128 {
        let full = self.burst * self.period;
        let (level, at) = self.buckets.get(&self.key(session)).copied().unwrap_or((full, now));
        full.min(level + now - at)
    }

    fn lets_through(&self, session: u128, now: u128) -> bool {
        let under_way = self.under_way.get(&self.key(session)).copied().unwrap_or_default();
        self.level(session, now) >= self.period && under_way < self.cap
    }

    fn charge(&mut self, session: u128, now: u128) {
        let level = self.level(session, now) - self.period;
        self.buckets.insert(self.key(session), (level, now));
        *self.under_way.entry(self.key(session)).or_default() += 1;
    }

    fn give_back(&mut self, session: u128) {
        *self.under_way.get_mut(&self.key(session)).unwrap() -= 1;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Call { rules: Vec<usize>, session: u128 },
    Finish(prop::sample::Index),
    Pause(Duration),
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rules = prop::sample::subsequence(vec![0, 1, 2], 1..=3).prop_shuffle();
    let step = prop_oneof![
        6 => (rules, 0..3_u128).prop_map(|(rules, session)| Step::Call { rules, session }),
        2 => any::<prop::sample::Index>().prop_map(Step::Finish),
        2 => (0..2000_u64).prop_map(|millis| Step::Pause(Duration::from_millis(millis))),
        1 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 0..120)
}

fn terms() -> impl Strategy<Value = Terms> {
    (1..5_u32, 1..6_u32, 1..6_u32, any::<bool>()).prop_map(|(count, burst, cap, by_session)| Terms {
        key: if by_session { Key::Session } else { Key::Global },
        concurrency: some(cap),
        ..rate("r", count, burst)
    })
}

proptest! {
    #[test]
    fn decides_as_a_naive_limiter_would(terms in prop::array::uniform3(terms()), steps in steps()) {
        let mut naive = terms.each_ref().map(Naive::new);
        let clock = FakeRelativeClock::default();
        let named = ["a", "b", "c"].into_iter().zip(terms).map(|(name, terms)| Terms { name: name.to_owned(), ..terms });
        let limits = Limits::with_clock(named, None, &clock);
        let (mut now, mut held) = (0, Vec::new());

        for step in steps {
            match step {
                Step::Call { rules, session: who } => {
                    let expected = rules.iter().all(|&rule| naive[rule].lets_through(who, now));
                    let matching: Vec<_> = rules.iter().map(|&rule| Arc::clone(&limits.rules()[rule])).collect();
                    let admitted = admit(&matching, &session(who));
                    prop_assert_eq!(admitted.is_ok(), expected);
                    if let Ok(permit) = admitted {
                        rules.iter().for_each(|&rule| naive[rule].charge(who, now));
                        held.push((permit, rules, who));
                    }
                }
                Step::Finish(index) if !held.is_empty() => {
                    let (permit, rules, who) = held.swap_remove(index.index(held.len()));
                    drop(permit);
                    rules.iter().for_each(|&rule| naive[rule].give_back(who));
                }
                Step::Finish(_) => (),
                Step::Pause(pause) => {
                    now += pause.as_nanos();
                    clock.advance(pause);
                }
                Step::Sweep => limits.sweep(),
            }
        }
    }

    #[test]
    fn lets_through_what_it_promised_and_not_before(count in 1..1000_u32, burst_size in 1..10_u32) {
        let clock = FakeRelativeClock::default();
        let limits = build([rate("r", count, burst_size)], &clock);
        burst(&limits, &session(1));
        let retry_after = refused(&limits, &session(1)).2;

        clock.advance(retry_after - Duration::from_nanos(1));
        prop_assert!(admit(limits.rules(), &session(1)).is_err());
        clock.advance(Duration::from_nanos(1));
        prop_assert!(admit(limits.rules(), &session(1)).is_ok());
    }
}
