//! tower-sessions with its Redis store: `tower-sessions-redis FILE REDIS-URL`.
//!
//! `POST /` begins a session that holds the file's JSON, `GET /` answers with it.

use axum::Router;
use axum::routing::get;
use serde_json::Value;
use tower_sessions::cookie::time::Duration;
use tower_sessions::{Expiry, Session, SessionManagerLayer};
use tower_sessions_redis_store::RedisStore;
use tower_sessions_redis_store::fred::prelude::{ClientLike as _, Config, Pool};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("name the file with the session's JSON")?;
    let url = arguments.next().ok_or("name the Redis")?;
    let content: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let pool = Pool::new(Config::from_url(&url)?, None, None, None, 6)?;
    let _connection = pool.connect();
    pool.wait_for_connect().await?;
    let layer = SessionManagerLayer::new(RedisStore::new(pool))
        .with_secure(false)
        .with_expiry(Expiry::OnInactivity(Duration::hours(24)));
    let begin = async move |session: Session| match session.insert("session", content).await {
        Ok(()) => "begun".to_owned(),
        Err(error) => error.to_string(),
    };
    let show = async |session: Session| {
        let found = session.get::<Value>("session").await.ok().flatten();
        axum::Json(found.unwrap_or_default())
    };
    let app = Router::new().route("/", get(show).post(begin)).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
