//! What a replica makes of a gap that expects a number which is gone: an answer that was overtaken, or a server that
//! has forgotten. Taking the one for the other would number commands anew that were applied already.

use throughline_core::Command;
use throughline_core::sync::{ClientFrame, Output, PROTOCOL_VERSION, Replica, Restored, ServerFrame};

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

/// The numbers of the commands that the replica sends, and whether it says hello and wants to be a new client.
fn wishes(replica: &mut Replica) -> (Vec<u64>, bool, bool) {
    let (mut numbers, mut says_hello, mut renews) = (Vec::new(), false, false);
    for output in replica.take_outputs() {
        match output {
            Output::Send(ClientFrame::Hello(_)) => says_hello = true,
            Output::Send(ClientFrame::Submit { commands }) => {
                numbers.extend(commands.iter().map(|command| command.seq))
            }
            Output::NeedsNewClient => renews = true,
            _ => {}
        }
    }
    (numbers, says_hello, renews)
}

/// Three commands were sent; the first two are durable and gone, the third is not answered.
fn with_the_third_unanswered() -> Replica {
    let mut replica = Replica::new(session_id(), client("browser"), Restored::default());
    replica.set_funnel(default_funnel(), "hash".to_owned());
    replica.submit(Command::Create(Box::default()), START).unwrap();
    for email in ["ada@example.com", "grace@example.com"] {
        replica.submit(Command::SetEmail { email: email.to_owned() }, START).unwrap();
    }
    replica.commands_stored(3);
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
fn a_server_that_forgot_the_client_meets_it_under_a_new_name() {
    let mut replica = with_the_third_unanswered();
    replica.handle(gap(1));
    assert_eq!(wishes(&mut replica), (vec![], true, false));
    replica.handle(welcome(2, 0));
    assert_eq!(wishes(&mut replica), (vec![3], false, false));
    replica.handle(gap(1));
    assert_eq!(wishes(&mut replica), (vec![], false, true));
}

#[test]
fn a_welcome_that_comes_twice_counts_once() {
    let mut replica = with_the_third_unanswered();
    replica.handle(welcome(0, 0));
    replica.handle(gap(1));
    assert_eq!(wishes(&mut replica), (vec![], true, false));
}
