//! `/healthz`: the process gets on; `/readyz`: the API answers it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Longest silence of a process that gets on: looks at the lease come every few seconds, whatever the API answers.
const ALIVE: Duration = Duration::from_secs(300);
/// The API counts as away after this long without an answer.
const READY: Duration = Duration::from_secs(60);
/// Questions at a time.
const ASKING: usize = 16;
/// For one question.
const PATIENCE: Duration = Duration::from_secs(5);

/// When things last went well.
#[derive(Debug)]
pub(super) struct Health(Mutex<Times>);

#[derive(Debug)]
struct Times {
    looked: Instant,
    answered: Option<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Mutex::new(Times {
            looked: Instant::now(),
            answered: None,
        }))
    }
}

impl Health {
    /// The lease was looked at; the API answered or not.
    pub(super) fn looked(&self, answered: bool) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.looked = Instant::now();
        if answered {
            times.answered = Some(times.looked);
        }
    }

    fn answer(&self, path: &str) -> (StatusCode, &'static str) {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let well = match path {
            "/healthz" => times.looked.elapsed() < ALIVE,
            "/readyz" => times.answered.is_some_and(|at| at.elapsed() < READY),
            _ => return (StatusCode::NOT_FOUND, "ask for /healthz or /readyz\n"),
        };
        match well {
            true => (StatusCode::OK, "ok\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "the API does not answer\n"),
        }
    }
}

/// Answers there, until the process ends.
pub(super) async fn serve(address: SocketAddr, health: Arc<Health>) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tokio::spawn(async move {
        let asking = Arc::new(Semaphore::new(ASKING));
        loop {
            let Ok(permit) = Arc::clone(&asking).acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let health = Arc::clone(&health);
            tokio::spawn(async move {
                let answer = service_fn(|request: Request<_>| {
                    let (code, text) = health.answer(request.uri().path());
                    let mut response = Response::new(text.to_owned());
                    *response.status_mut() = code;
                    async { Ok::<_, Infallible>(response) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), answer);
                // Whoever asked has gone, or asks too slowly.
                let _ = tokio::time::timeout(PATIENCE, connection).await;
                drop(permit);
            });
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_once_the_api_has_answered() {
        let health = Health::default();
        assert_eq!(health.answer("/healthz").0, StatusCode::OK);
        health.looked(false);
        assert_eq!(health.answer("/readyz").0, StatusCode::SERVICE_UNAVAILABLE);
        health.looked(true);
        assert_eq!(health.answer("/readyz").0, StatusCode::OK);
        assert_eq!(health.answer("/").0, StatusCode::NOT_FOUND);
    }
}
