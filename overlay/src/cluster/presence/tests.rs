use super::*;

#[test]
fn only_a_host_that_is_neither_heard_nor_answers_is_dead() {
    let all = [Liveness::Live, Liveness::Suspect, Liveness::Dead];
    assert_eq!(all.map(|agent| liveness(agent, false)), [Liveness::Live, Liveness::Suspect, Liveness::Suspect]);
    assert_eq!(all.map(|agent| liveness(agent, true)), all);
}
