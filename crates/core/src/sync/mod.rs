//! The sync protocol: how a change gets from a browser to the database, and nothing that was acknowledged is lost.
//!
//! Two state machines without I/O talk in frames. The [`Replica`] lives in the browser, the [`Authority`] in the
//! server; sockets, storage and timers are thin shells around them. `PROTOCOL.md` is the normative text.
//!
//! The story of one command:
//!
//! 1. [`Replica::submit`] judges it with [`decide`](crate::decide), shows its effect at once, and asks the shell to store
//!    it ([`StorageChange::PutCommand`]). Only when it is stored is it sent: the browser is the last copy.
//! 2. [`Authority::submit`] judges it again, on the state that counts, and asks the shell to commit the records.
//!    The highest number applied for each client is inside the committed state: sent twice, it is applied once.
//! 3. After the commit everybody who follows the session gets the records (`events`), the sender its answer
//!    (`accepted` or `rejected`), and everybody `durable`.
//! 4. The replica applies the records to its confirmed state, and its own still pending commands on top of that.
//!    It drops a command from its outbox only when that is durable: the browser is the last copy.
//!
//! ```
//! # use throughline_core::{sync::*, *};
//! # let funnel: Funnel = toml::from_str(include_str!("../../funnels/default.toml")).unwrap();
//! # let funnels = FixedFunnel::new(funnel.clone(), "hash");
//! # let now = Timestamp::from_millis(1_795_165_200_000);
//! # let environment = Environment { now, funnels: &funnels, epoch: 7, relaxed: false };
//! # let session_id = SessionId::generate(now, [1; 16]);
//! # let client = ClientId::generate([2; 16]);
//! // A browser that is offline creates a session and sets an email address.
//! let mut replica = Replica::new(session_id.clone(), client.clone(), Restored::default());
//! replica.set_funnel(funnel, "hash".to_owned());
//! replica.submit(Command::Create(Box::default()), now).unwrap();
//! let seq = replica.submit(Command::SetEmail { email: "ada@example.com".into() }, now).unwrap();
//! assert!(replica.session().unwrap().email.is_some(), "shown at once");
//! replica.commands_stored(&client, seq);
//!
//! // Later it reaches a server. Frames go back and forth until both are quiet.
//! let mut authority = Authority::new(session_id, None);
//! let peer = PeerId(1);
//! replica.connected();
//! loop {
//!     let mut effects = Vec::new();
//!     for output in replica.take_outputs() {
//!         match output {
//!             Output::Send(ClientFrame::Hello(hello)) => {
//!                 let credential = Credential::Claim("digest".to_owned());
//!                 effects.extend(authority.join(peer, Role::Browser, credential, &hello, &environment).unwrap());
//!             }
//!             Output::Send(ClientFrame::Submit { commands, .. }) => {
//!                 effects.extend(authority.submit(peer, commands.into_iter().map(Into::into), &environment));
//!             }
//!             _ => {}
//!         }
//!     }
//!     if effects.is_empty() {
//!         break;
//!     }
//!     while let Some(effect) = (!effects.is_empty()).then(|| effects.remove(0)) {
//!         match effect {
//!             Effect::Send { frame, .. } => replica.handle(frame),
//!             Effect::Commit(_) => effects.extend(authority.committed(&environment)),
//!             other => unreachable!("the store never failed, and nothing is relaxed: {other:?}"),
//!         }
//!     }
//! }
//! assert_eq!(replica.pending(), 0, "everything is durable");
//! assert_eq!(replica.session().unwrap().version, authority.state().unwrap().version());
//! ```

// The server's end is nothing that a browser needs.
#[cfg(not(target_family = "wasm"))]
mod authority;
mod frame;
mod replica;

#[cfg(not(target_family = "wasm"))]
pub use authority::{
    Authority, Commit, Credential, DatabaseView, Effect, Environment, FixedFunnel, FunnelEntry, Funnels, Issued,
    JoinRefused, Loaded, News, PeerId, Request, Share, SharedView, TailEntry,
};
pub use frame::{ClientFrame, ErrorCode, Hello, PROTOCOL_VERSION, ServerFrame, Submission};
pub use replica::{Confirmation, Link, Output, Replica, Restored, StorageChange, StoredCommand};
