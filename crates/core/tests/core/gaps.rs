//! What a replica makes of a gap that expects a number which is gone: an answer that was overtaken, or a server that
//! has forgotten. Taking the one for the other would number commands anew that were applied already.

use throughline_core::Command;
use throughline_core::sync::{ClientFrame, Output, PROTOCOL_VERSION, Replica, Restored, ServerFrame, StoredCommand};

use crate::generate::{START, client, default_funnel, session_id};

fn welcome(version: u64, last_seq: u64) -> ServerFrame {
    ServerFrame::Welcome {
        protocol: PROTOCOL_VERSION,
        session_id: session_id(),
        epoch: 0,
        version,
        durable_version: version,
        last_seq,
        server_time: START,
        funnel_hash: None,
        funnel: None,
    }
}

fn accepted(seq: u64) -> ServerFrame {
    ServerFrame::Accepted { client_id: client("browser"), seq, version: seq, repeated: false }
}

fn gap(expected: u64) -> ServerFrame {
    ServerFrame::Gap { client_id: client("browser"), expected }
}

/// The numbers of the commands that the replica sends, whether it says hello, and whether the server need not wait for
/// commands before the first of them.
fn wishes(replica: &mut Replica) -> (Vec<u64>, bool, bool) {
    let (mut numbers, mut says_hello, mut is_first) = (Vec::new(), false, false);
    for output in replica.take_outputs() {
        match output {
            Output::Send(ClientFrame::Hello(_)) => says_hello = true,
            Output::Send(ClientFrame::Submit { commands, .. }) => {
                is_first |= numbers.is_empty() && commands.iter().any(|command| command.first);
                numbers.extend(commands.iter().map(|command| command.seq));
            }
            _ => {}
        }
    }
    (numbers, says_hello, is_first)
}

/// Three commands were sent; the first two are durable and gone, the third is not answered.
fn with_the_third_unanswered() -> Replica {
    let mut replica = new_replica("browser");
    replica.submit(Command::Create(Box::default()), START).unwrap();
    for email in ["ada@example.com", "grace@example.com"] {
        replica.submit(Command::SetEmail { email: email.to_owned() }, START).unwrap();
    }
    replica.commands_stored(&client("browser"), 3);
    replica.connected();
    replica.handle(welcome(0, 0));
    assert_eq!(wishes(&mut replica), (vec![1, 2, 3], true, false));
    for frame in [accepted(1), accepted(2), ServerFrame::Durable { version: 2 }] {
        replica.handle(frame);
    }
    assert_eq!(replica.pending(), 1);
    replica.take_outputs();
    replica
}

#[test]
fn a_gap_that_was_overtaken_by_its_answer_is_asked_about() {
    let mut replica = with_the_third_unanswered();
    replica.handle(gap(2));
    assert_eq!(wishes(&mut replica), (vec![], true, false));
    // One more of its kind, and answers from before: all of it is given again after the welcome.
    for frame in [gap(2), accepted(3)] {
        replica.handle(frame);
    }
    assert_eq!(wishes(&mut replica), (vec![], false, false));
    replica.handle(welcome(3, 3));
    assert_eq!(wishes(&mut replica).0, [3]);
}

#[test]
fn a_server_that_forgot_the_client_goes_on_with_the_numbers_that_are_left() {
    let mut replica = with_the_third_unanswered();
    replica.handle(gap(1));
    assert_eq!(wishes(&mut replica), (vec![], true, false));
    replica.handle(welcome(2, 0));
    assert_eq!(wishes(&mut replica), (vec![3], false, false));
    replica.handle(gap(1));
    assert_eq!(wishes(&mut replica), (vec![3], false, true));
}

#[test]
fn a_welcome_that_comes_twice_counts_once() {
    let mut replica = with_the_third_unanswered();
    replica.handle(welcome(0, 0));
    replica.handle(gap(1));
    assert_eq!(wishes(&mut replica), (vec![], true, false));
}

fn new_replica(name: &str) -> Replica {
    let mut replica = Replica::new(session_id(), client(name), Restored::default());
    replica.set_funnel(default_funnel(), "hash".to_owned());
    replica
}

fn set_email(seq: u64) -> StoredCommand {
    let command = Command::SetEmail { email: format!("{seq}@example.com") };
    StoredCommand { seq, at: START, command }
}

fn other_gap(expected: u64) -> ServerFrame {
    ServerFrame::Gap { client_id: client("other"), expected }
}

/// A leading tab that carries the commands 6 and 7 of another tab, of which the server expects number 5.
fn without_the_fifth_of_another_tab() -> Replica {
    let mut replica = with_the_third_unanswered();
    replica.handle(accepted(3));
    replica.handle(ServerFrame::Durable { version: 3 });
    replica.observe(&client("other"), vec![set_email(6), set_email(7)], false);
    assert_eq!(wishes(&mut replica), (vec![6, 7], false, false));
    replica.handle(other_gap(5));
    assert!(replica.take_outputs().contains(&Output::Missing(client("other"))));
    replica
}

#[test]
fn what_another_tab_has_is_waited_for() {
    let mut replica = without_the_fifth_of_another_tab();
    // The same is said of number 7, which was on its way.
    replica.handle(other_gap(5));
    assert_eq!(wishes(&mut replica), (vec![], false, false));
    replica.observe(&client("other"), vec![set_email(5), set_email(6), set_email(7)], false);
    assert_eq!(wishes(&mut replica), (vec![5, 6, 7], false, false));
}

#[test]
fn what_no_tab_has_any_more_is_left_out() {
    let mut replica = without_the_fifth_of_another_tab();
    replica.skip(&client("other"));
    assert_eq!(wishes(&mut replica), (vec![6, 7], false, true));

    let mut replica = without_the_fifth_of_another_tab();
    replica.observe(&client("other"), vec![set_email(6), set_email(7)], true);
    assert_eq!(wishes(&mut replica), (vec![6, 7], false, true));
}
