//! Generic ways to send a file that the receiver has an older version of.

use anyhow::Context;
use qbsdiff::Bsdiff;
use zstd::zstd_safe::{CCtx, CParameter, compress_bound, get_error_name};

const LEVEL: i32 = 19;
/// Largest window of zstd on 64 bits, and what `--patch-from` raises it to for files of this size.
const WINDOW_LOG_MAX: u32 = 27;
/// Magic and hash of the dictionary in front of a `dcz` body (RFC 9842 § 5).
const DCZ_HEADER_BYTES: usize = 40;

/// `zstd -19 --patch-from`: the base as prefix, a window over both; with long-distance matching or without,
/// whichever is smaller.
pub(crate) fn zstd_patch_from(base: &[u8], target: &[u8]) -> anyhow::Result<usize> {
    let with_long = compressed(target, Base::Prefix(base), true)?;
    let without = compressed(target, Base::Prefix(base), false)?;
    Ok(with_long.min(without))
}

/// Compression Dictionary Transport with Zstandard: the base as raw dictionary (RFC 9842).
pub(crate) fn zstd_dictionary(base: &[u8], target: &[u8]) -> anyhow::Result<usize> {
    Ok(compressed(target, Base::Dictionary(base), false)? + DCZ_HEADER_BYTES)
}

/// bsdiff 4, whose three streams are compressed by bzip2.
pub(crate) fn bsdiff(base: &[u8], target: &[u8]) -> anyhow::Result<usize> {
    let mut patch = Vec::new();
    Bsdiff::new(base, target)
        .compare(std::io::Cursor::new(&mut patch))
        .context("bsdiff")?;
    Ok(patch.len())
}

enum Base<'a> {
    Prefix(&'a [u8]),
    Dictionary(&'a [u8]),
}

fn compressed(target: &[u8], base: Base<'_>, is_long: bool) -> anyhow::Result<usize> {
    let (Base::Prefix(base_bytes) | Base::Dictionary(base_bytes)) = &base;
    let len = base_bytes.len() + target.len();
    let window_log = (usize::BITS - len.leading_zeros()).clamp(10, WINDOW_LOG_MAX);
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::WindowLog(window_log),
        CParameter::EnableLongDistanceMatching(is_long),
    ] {
        context.set_parameter(parameter).map_err(failed)?;
    }
    match base {
        Base::Prefix(bytes) => context.ref_prefix(bytes).map_err(failed)?,
        Base::Dictionary(bytes) => context.load_dictionary(bytes).map_err(failed)?,
    };
    let mut bytes = vec![0; compress_bound(target.len())];
    context.compress2(&mut bytes[..], target).map_err(failed)
}

fn failed(code: usize) -> anyhow::Error {
    anyhow::anyhow!("zstd: {}", get_error_name(code))
}
