//! Images of 8-bit RGB: made smaller, and just enough of PNG (RFC 2083, ISO 15948) for one of them.

/// Averages blocks of `factor x factor` RGB pixels.
pub(crate) fn shrink(fine: &[u8], width: usize, height: usize, factor: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(width * height * 3);
    let stride = width * factor * 3;
    let count = factor * factor;
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let mut sum = 0;
                for dy in 0..factor {
                    for dx in 0..factor {
                        sum +=
                            usize::from(fine[(y * factor + dy) * stride + (x * factor + dx) * 3 + channel]);
                    }
                }
                out.push(((sum + count / 2) / count) as u8);
            }
        }
    }
    out
}

/// CRC-32 of the format: the one of ISO 3309, reflected.
fn crc32(parts: [&[u8]; 2]) -> u32 {
    let mut crc = !0u32;
    for byte in parts.into_iter().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(kind);
    out.extend_from_slice(data);
    out.extend_from_slice(&crc32([kind, data]).to_be_bytes());
}

/// The file with these pixels, three bytes each, row by row.
pub(crate) fn png(pixels: &[u8], width: u32, height: u32) -> Vec<u8> {
    const LEVEL: u8 = 7;
    const UP: u8 = 2;
    let stride = width as usize * 3;
    let mut filtered = Vec::with_capacity(pixels.len() + height as usize);
    let mut above = vec![0; stride];
    for row in pixels.chunks_exact(stride) {
        // The difference to the row above: mostly zeros in a diagram.
        filtered.push(UP);
        filtered.extend(row.iter().zip(&above).map(|(x, a)| x.wrapping_sub(*a)));
        above.copy_from_slice(row);
    }
    let mut header = Vec::with_capacity(13);
    header.extend_from_slice(&width.to_be_bytes());
    header.extend_from_slice(&height.to_be_bytes());
    // 8 bits a channel, RGB, deflate, adaptive filters, not interlaced.
    header.extend_from_slice(&[8, 2, 0, 0, 0]);
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut out, b"IHDR", &header);
    chunk(&mut out, b"IDAT", &miniz_oxide::deflate::compress_to_vec_zlib(&filtered, LEVEL));
    chunk(&mut out, b"IEND", &[]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_chunk_is_the_one_of_every_png() {
        let file = png(&[0; 12], 2, 2);
        assert_eq!(file[file.len() - 12..], *b"\0\0\0\0IEND\xae\x42\x60\x82");
        assert_eq!(file[8..16], *b"\0\0\0\x0dIHDR");
        // The check value of the CRC catalogue.
        assert_eq!(crc32([b"12345", b"6789"]), 0xcbf4_3926);
    }

    #[test]
    fn shrinking_averages_blocks() {
        let fine = [[0u8, 0, 0], [4, 8, 255], [8, 0, 0], [4, 8, 1]].concat();
        assert_eq!(shrink(&fine, 1, 1, 2), [4, 4, 64]);
    }
}
