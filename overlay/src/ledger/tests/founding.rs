//! Clusters that were founded apart: no host of the one ever becomes a member of the other, not even through a third.

use super::*;
use crate::model::member::Boot;

/// The ledger of a host that has founded a cluster.
fn founder_of(number: u8) -> Ledger {
    let mut ledger = Ledger::new(host(number));
    write(&mut ledger, &Input::Found);
    ledger
}

fn write(ledger: &mut Ledger, input: &Input) -> Outcome {
    let step = ledger.step(input, 0);
    ledger.apply(&step.changes);
    step.outcome
}

/// One asks the other to acknowledge it as a member, and hears the answer.
fn joins(asker: &mut Ledger, by: &mut Ledger) -> Outcome {
    let (from, stamp, founder) = (asker.me(), asker.stamp(), asker.membership().founder);
    let outcome = write(by, &Input::Acknowledge { from, stamp, founder });
    if let Outcome::MemberList(member_list) = outcome.clone() {
        write(asker, &Input::Acknowledged { by: by.me(), member_list });
    }
    outcome
}

fn apart(founder: u8) -> Outcome {
    Outcome::Denied(Denial::Apart { founder: host(founder) })
}

#[test]
fn a_host_belongs_to_the_cluster_that_lets_it_in() {
    let (mut first, mut second, mut newcomer) = (founder_of(1), founder_of(2), Ledger::new(host(3)));
    assert_eq!((first.membership().founder, newcomer.membership().founder), (Some(host(1)), None));
    joins(&mut newcomer, &mut first);
    assert!(newcomer.is_established());
    assert_eq!(newcomer.membership().founder, Some(host(1)));
    // It brings nobody from the one to the other.
    assert_eq!(joins(&mut newcomer, &mut second), apart(2));
    assert_eq!(joins(&mut second, &mut newcomer), apart(1));
    assert_eq!((second.membership().members.len(), first.membership().members.len()), (0, 1));
}

#[test]
fn an_answer_of_another_cluster_that_comes_late_counts_for_nothing() {
    let (mut first, mut second, mut newcomer) = (founder_of(1), founder_of(2), Ledger::new(host(3)));
    let ask = Input::Acknowledge { from: host(3), stamp: newcomer.stamp(), founder: None };
    let Outcome::MemberList(late) = write(&mut second, &ask) else { unreachable!("it belongs to nobody") };
    joins(&mut newcomer, &mut first);
    let before = newcomer.clone();
    write(&mut newcomer, &Input::Acknowledged { by: host(2), member_list: late });
    assert_eq!(newcomer, before);
}

/// Else it acts on what was given to its heir: those who forgot it know nobody of the cluster that let it in.
#[test]
fn after_a_boot_no_other_cluster_lets_a_host_in() {
    let (mut first, mut second, mut booted) = (founder_of(1), founder_of(2), Ledger::new(host(3)));
    joins(&mut booted, &mut first);
    write(&mut booted, &Input::Booted { nonce: 5 });
    let (stamp, founder) = (booted.stamp(), booted.membership().founder);
    let ask = Input::Admit { from: host(3), stamp, founder, claims: [].into(), elsewhere: false };
    assert_eq!(write(&mut second, &ask), apart(2));
    // And if it did:
    let member_list = MemberList { founder: Some(host(2)), ..MemberList::default() };
    write(&mut booted, &Input::Admitted { by: host(2), member_list });
    write(&mut booted, &Input::Conclude { reachable: Some([host(2)].into()) });
    assert!(!booted.is_established());
    assert_eq!(booted.membership().boot, Boot { generation: 1, nonce: 5 });
}

#[test]
fn who_has_founded_alone_joins_another_cluster_unless_it_holds_something() {
    let mut alone = founder_of(2);
    write(&mut alone, &Input::Seek);
    // As a new host: where the old one belonged stays true for whoever has heard it.
    assert_eq!(alone.membership().activation, Activation::Fenced(Fencing::Moves));

    let mut holds = founder_of(3);
    write(&mut holds, &Input::Create(network(8, "10.30.0.0/24")));
    write(&mut holds, &Input::Seek);
    assert_eq!((holds.is_established(), holds.membership().founder), (true, Some(host(3))));
}

/// Two clusters of two. Host 5 asked the second to let it in, the answer was lost, and it joined the first.
struct Ghost {
    first: Ledger,
    second: [Ledger; 2],
    ghost: Ledger,
}

impl Ghost {
    fn new() -> Self {
        let (mut first, mut second, mut other) = (founder_of(1), founder_of(2), Ledger::new(host(3)));
        joins(&mut other, &mut second);
        write(&mut second, &Input::Create(network(7, "10.20.0.0/24")));
        let mut ghost = Ledger::new(host(5));
        write(&mut second, &Input::Acknowledge { from: host(5), stamp: ghost.stamp(), founder: None });
        joins(&mut ghost, &mut first);
        assert!(ghost.is_established());
        Self { first, second: [second, other], ghost }
    }

    /// What a host publishes of itself, told to another.
    fn tells(teller: &Ledger, listener: &mut Ledger) {
        let Membership { founder, seals, .. } = teller.membership().clone();
        write(listener, &Input::Belongs { from: teller.me(), founder, seals });
    }

    /// Both of the second cluster do what it takes.
    fn is_forgotten_by(second: &mut Ledger, other: &mut Ledger) {
        let hosts = [(host(5), Boot::default())].into();
        assert_eq!(write(second, &Input::Forget { hosts, force: false }), Outcome::Done);
        let seal_request = second.seal_request(host(5)).expect("it is its heir");
        let sealed = write(other, &Input::Seal { from: host(2), host: host(5), seal_request });
        let Outcome::Sealed(ledger_snapshot) = sealed else { unreachable!("it is a member: {sealed:?}") };
        write(second, &Input::Sealed { by: host(3), host: host(5), ledger_snapshot });
    }

    fn holds(ledger: &Ledger) -> usize {
        ledger.accounts().values().map(|account| account.held_by(ledger.me()).count()).sum()
    }
}

#[test]
fn who_was_taken_for_a_member_and_joined_another_cluster_seals_nobody_and_is_not_waited_for() {
    let Ghost { first, second: [mut second, other], mut ghost } = Ghost::new();
    let hosts = [(other.me(), Boot::default())].into();
    assert_eq!(write(&mut second, &Input::Forget { hosts, force: true }), Outcome::Done);
    assert_eq!(second.missing(other.me()), [host(5)].into());
    let before = ghost.clone();
    let seal_request = second.seal_request(other.me()).expect("it is its heir");
    let refused = write(&mut ghost, &Input::Seal { from: host(2), host: other.me(), seal_request });
    assert_eq!((refused, &ghost), (apart(1), &before));
    write(&mut second, &Input::Refused { by: host(5), denial: Denial::Apart { founder: host(1) } });
    let passed = Input::tick(&second);
    write(&mut second, &passed);
    assert!(second.membership().is_forgotten(other.me()), "nobody is left to be asked");
    assert!(!second.membership().members.contains(&host(5)), "nobody else is told of it");
    assert_eq!(first.membership().members, [host(5)].into());
}

#[test]
fn what_it_was_given_is_used_again_when_it_is_forgotten() {
    let Ghost { second: [mut second, mut other], mut ghost, .. } = Ghost::new();
    let network = network(7, "10.20.0.0/24");
    let all = network.blocks().count();
    let given =
        write(&mut second, &Input::GiveSpace { network: network.id, range: 0, to: host(5), share: Share::Half });
    let Outcome::Given(statements) = given else { unreachable!("it is taken for a member") };
    for statement in statements {
        let told = Input::Stated { network: network.id, from: host(2), stamp: second.stamp(), statement };
        assert_eq!(write(&mut ghost, &told), Outcome::Denied(Denial::UnknownNetwork));
    }
    Ghost::tells(&ghost, &mut second);
    let asks = Input::GiveSpace { network: network.id, range: 0, to: host(5), share: Share::Half };
    assert_eq!(write(&mut second, &asks), apart(2), "it is known to belong elsewhere");
    assert!(Ghost::holds(&second) < all);
    // Though it is no member, and wherever it is said.
    Ghost::is_forgotten_by(&mut second, &mut other);
    assert_eq!(Ghost::holds(&second), all);
}

#[test]
fn who_belongs_elsewhere_and_has_nothing_here_is_not_for_this_cluster_to_forget() {
    let Ghost { second: [mut second, _], ghost, .. } = Ghost::new();
    Ghost::tells(&ghost, &mut second);
    let hosts = [(host(5), Boot::default())].into();
    let refused = write(&mut second, &Input::Forget { hosts, force: true });
    assert_eq!(refused, Outcome::Denied(Denial::Stranger { host: host(5) }));
}

#[test]
fn who_is_forgotten_in_one_cluster_lives_on_in_the_other() {
    let Ghost { second: [mut second, mut other], mut ghost, .. } = Ghost::new();
    Ghost::is_forgotten_by(&mut second, &mut other);
    assert!(second.membership().is_forgotten(host(5)));
    Ghost::tells(&second, &mut ghost);
    write(&mut ghost, &Input::Refused { by: host(2), denial: Denial::Sealed { host: host(5) } });
    assert!(ghost.is_established());
}

#[test]
fn before_it_belongs_to_a_cluster_a_host_knows_no_networks_and_by_a_seal_it_comes_to_belong_to_one() {
    let (mut first, mut second, mut newcomer) = (founder_of(1), founder_of(2), Ledger::new(host(5)));
    let mut other = Ledger::new(host(3));
    joins(&mut other, &mut second);
    let theirs = network(7, "10.20.0.0/24");
    for input in [Input::Learn(theirs.clone()), Input::Close(theirs.id)] {
        assert_eq!(write(&mut newcomer, &input), Outcome::Denied(Denial::Joining));
    }
    write(&mut second, &Input::Acknowledge { from: host(5), stamp: newcomer.stamp(), founder: None });
    let hosts = [(other.me(), Boot::default())].into();
    write(&mut second, &Input::Forget { hosts, force: true });
    let seal_request = second.seal_request(other.me()).expect("it is its heir");
    let sealed = write(&mut newcomer, &Input::Seal { from: host(2), host: other.me(), seal_request });
    let Outcome::Sealed(ledger_snapshot) = sealed else { unreachable!("it is taken for a member: {sealed:?}") };
    write(&mut second, &Input::Sealed { by: host(5), host: other.me(), ledger_snapshot });
    // In another it would go on sealing who may be a member there.
    assert_eq!(joins(&mut newcomer, &mut first), apart(1));
    joins(&mut newcomer, &mut second);
    assert_eq!((newcomer.is_established(), newcomer.membership().founder), (true, Some(host(2))));
}

/// The disk of a founder, put back as it was when it was alone: nobody is there to be asked at its boot.
#[test]
fn a_founder_that_hears_a_member_it_knows_nothing_of_has_an_old_disk() {
    let mut old = founder_of(1);
    write(&mut old, &Input::Create(network(7, "10.20.0.0/24")));
    let (mut first, mut second) = (old.clone(), Ledger::new(host(2)));
    joins(&mut second, &mut first);
    Ghost::tells(&second, &mut first);
    assert!(first.is_established(), "that one it has let in");
    write(&mut old, &Input::Booted { nonce: 5 });
    assert_eq!(write(&mut old, &Input::Conclude { reachable: None }), Outcome::Denied(Denial::Unchecked), "strict");
    write(&mut old, &Input::Conclude { reachable: Some([].into()) });
    assert!(old.is_established());
    Ghost::tells(&second, &mut old);
    let restored = Fencing::Restored { by: host(2), evidence: Evidence::LaterMember };
    assert_eq!(old.membership().activation, Activation::Fenced(restored));
}
