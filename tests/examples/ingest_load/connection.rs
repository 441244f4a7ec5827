//! One kept-alive HTTP/1.1 connection, blocking and with few copies: the generator shares the cores with the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, ensure};
use serde_json::Value;

pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
    address: String,
}

impl Connection {
    pub(crate) fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            reader: BufReader::new(stream),
            address: address.to_owned(),
        })
    }

    /// Sends JSON text (none for GET) and reads the answer, which must be JSON and a success.
    pub(crate) fn send(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.ask(method, path, body)?)?)
    }

    /// As [`Self::send`] for an answer of any kind.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<Vec<u8>> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.reader.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let status = line.trim().to_owned();
        let mut num_bytes = None;
        loop {
            line.clear();
            ensure!(self.reader.read_line(&mut line)? > 0, "the server hung up");
            if line.trim().is_empty() {
                break;
            }
            let header = line.split_once(':').context("a header without a colon")?;
            if header.0.eq_ignore_ascii_case("content-length") {
                num_bytes = Some(header.1.trim().parse()?);
            }
        }
        let mut answer = vec![0; num_bytes.context("an answer without a length")?];
        self.reader.read_exact(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        ensure!(
            status.contains(" 200 "),
            "{method} {path}: {status}: {text}"
        );
        Ok(answer)
    }
}
