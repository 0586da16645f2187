//! A receiver of spans for the browser tests. It prints where it is, and ends with its standard input.

use std::io;

use throughline_test_services::otlp_receiver::OtlpReceiver;

fn main() -> io::Result<()> {
    let receiver = OtlpReceiver::start()?;
    println!("receiving at {}", receiver.url);
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}
