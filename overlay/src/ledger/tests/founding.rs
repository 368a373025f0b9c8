//! Clusters that were founded apart: no host of the one ever becomes a member of the other, not even through a third.

use super::*;
use crate::member::Boot;

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
    if let Outcome::Welcome(welcome) = outcome.clone() {
        write(asker, &Input::Acknowledged { by: by.me(), welcome });
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
    let Outcome::Welcome(late) = write(&mut second, &ask) else { unreachable!("it belongs to nobody") };
    joins(&mut newcomer, &mut first);
    let before = newcomer.clone();
    write(&mut newcomer, &Input::Acknowledged { by: host(2), welcome: late });
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
    let welcome = Welcome { founder: Some(host(2)), ..Welcome::default() };
    write(&mut booted, &Input::Admitted { by: host(2), welcome });
    write(&mut booted, &Input::Conclude { reachable: Some([host(2)].into()) });
    assert!(!booted.is_established());
    assert_eq!(booted.membership().boot, Boot { generation: 1, nonce: 5 });
}

#[test]
fn who_has_founded_alone_joins_another_cluster_unless_it_holds_something() {
    let (mut first, mut second) = (founder_of(1), founder_of(2));
    let theirs = network(7, "10.20.0.0/24");
    write(&mut first, &Input::Create(theirs.clone()));
    // It is heard what the other has before it can be asked for anything.
    write(&mut second, &Input::Learn(theirs.clone()));
    let runs = first.accounts()[&theirs.id].runs(host(1));
    let (stamp, borrowed) = (first.stamp(), [].into());
    write(&mut second, &Input::Holding { network: theirs.id, from: host(1), stamp, runs, borrowed });
    write(&mut second, &Input::Seek);
    assert_eq!(second.membership().founder, None);
    joins(&mut second, &mut first);
    assert!(second.is_established());
    assert_eq!(second.membership().founder, Some(host(1)));

    let mut third = founder_of(3);
    write(&mut third, &Input::Create(network(8, "10.30.0.0/24")));
    write(&mut third, &Input::Seek);
    assert_eq!((third.is_established(), third.membership().founder), (true, Some(host(3))));
}
