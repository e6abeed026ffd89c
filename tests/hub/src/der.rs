//! Reads the subject's common name from an X.509 certificate. Nothing else.

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The common name of the subject, if there is one.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut tbs, _) = element(certificate)?;
    let mut fields = Vec::new();
    while let Some((tag, body, rest)) = element(tbs) {
        // The optional version comes first, in a context tag.
        if tag != 0xa0 {
            fields.push(body);
        }
        tbs = rest;
    }
    // serial, signature algorithm, issuer, validity, subject
    let mut names = *fields.get(4)?;
    while let Some((_, set, rest)) = element(names) {
        let (_, attribute, _) = element(set)?;
        let (_, oid, value) = element(attribute)?;
        if oid == COMMON_NAME {
            return String::from_utf8(element(value)?.1.to_vec()).ok();
        }
        names = rest;
    }
    None
}

/// Splits off one element: tag, contents, what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, first) = (*bytes.first()?, usize::from(*bytes.get(1)?));
    let (header, length) = match first {
        0..=0x7f => (2, first),
        _ => {
            let count = first & 0x7f;
            let digits = bytes.get(2..2 + count)?;
            (
                2 + count,
                digits
                    .iter()
                    .fold(0, |sum, digit| sum << 8 | usize::from(*digit)),
            )
        }
    };
    let body = bytes.get(header..header + length)?;
    Some((tag, body, &bytes[header + length..]))
}
