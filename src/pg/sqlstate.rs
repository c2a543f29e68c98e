//! SQLSTATEs in PostgreSQL's packed form.

/// `MAKE_SQLSTATE` of `utils/elog.h`: six bits for each character.
pub fn pack(code: &[u8]) -> i32 {
    code.iter().rev().fold(0, |packed, byte| {
        (packed << 6) | i32::from(byte.wrapping_sub(b'0') & 0x3f)
    })
}

/// The five characters of a packed SQLSTATE (`unpack_sql_state`).
pub fn unpack(mut packed: i32) -> [u8; 5] {
    let mut code = [0; 5];
    for byte in &mut code {
        *byte = ((packed & 0x3f) as u8) + b'0';
        packed >>= 6;
    }
    code
}
