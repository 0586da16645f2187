//! How far a replica says that its commands are.

use throughline_core::sync::{Output, PROTOCOL_VERSION, Replica, Restored, ServerFrame, StoredCommand};
use throughline_core::{Command, Role};

use crate::generate::{START, Walk, client, default_funnel, session_id};

fn stages(replica: &Replica) -> Vec<&'static str> {
    replica.pending_stages().collect()
}

fn welcome(epoch: u64, version: u64) -> ServerFrame {
    ServerFrame::Welcome {
        protocol: PROTOCOL_VERSION,
        session_id: session_id(),
        epoch,
        version,
        durable_version: version,
        last_seq: 0,
        server_time: START,
        funnel_hash: None,
        funnel: None,
    }
}

#[test]
fn a_pending_command_is_issued_then_stored_then_sent_then_accepted() {
    let browser = client("browser");
    let mut replica = Replica::new(session_id(), browser.clone(), Restored::default());
    replica.set_funnel(default_funnel(), "hash".to_owned());
    replica.submit(Command::Create(Box::default()), START).unwrap();
    replica.submit(Command::SetEmail { email: "ada@example.com".to_owned() }, START).unwrap();
    assert_eq!(stages(&replica), ["issued", "issued"]);
    replica.commands_stored(&browser, 1);
    assert_eq!(stages(&replica), ["stored", "issued"]);
    replica.connected();
    replica.handle(welcome(0, 0));
    assert_eq!(stages(&replica), ["sent", "issued"]);
    replica.handle(ServerFrame::Accepted { client_id: browser.clone(), seq: 1, version: 1, repeated: false });
    replica.commands_stored(&browser, 2);
    assert_eq!(stages(&replica), ["accepted", "sent"]);
    replica.handle(ServerFrame::Durable { version: 1 });
    assert_eq!(stages(&replica), ["sent"]);
    // What was sent over a connection that is gone is sent again.
    replica.disconnected();
    assert_eq!(stages(&replica), ["stored"]);
}

#[test]
fn what_a_snapshot_has_already_is_not_shown_once_more() {
    let email = Command::SetEmail { email: "ada@example.com".to_owned() };
    let mut walk = Walk::new(default_funnel());
    for command in [Command::Create(Box::default()), email.clone()] {
        walk.issue(Role::Browser, command).outcome.unwrap();
    }
    // A tab has gone that did both; another one carries what it left, and the server did not know of that in its snapshot.
    let gone = client("browser");
    let outbox = vec![(gone.clone(), StoredCommand { seq: 2, at: START, command: email })];
    let mut replica = Replica::new(session_id(), client("another"), Restored { outbox, ..Restored::default() });
    replica.set_funnel(default_funnel(), "hash".to_owned());
    replica.connected();
    let state = walk.state.unwrap().project(Role::Browser, &[]);
    replica.handle(welcome(state.epoch, 2));
    replica.handle(ServerFrame::Snapshot { state: Box::new(state) });
    replica.take_outputs();
    replica.handle(ServerFrame::Accepted { client_id: gone, seq: 2, version: 2, repeated: true });
    assert_eq!(replica.session().unwrap().version, 2);
    assert!(replica.take_outputs().contains(&Output::Changed));
    assert_eq!(replica.pending(), 0);
    replica.handle(ServerFrame::Durable { version: 2 });
    assert_eq!(replica.session().unwrap().version, 2);
}
