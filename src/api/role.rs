//! The functions of the type `background.role`.

use crate::pg::error::Result;
use crate::pg::function::call::{Answer, Call};
use crate::pg::function::rows::Value;
use crate::pg::value::role::{self, Role};
use core::cmp::Ordering;

crate::sql_function! {
    pg_background_role_in => input;
    pg_background_role_out => output;
    pg_background_role_of => of_oid;
    pg_background_role_oid => to_oid;
    pg_background_role_name => to_name;
    pg_background_role_cmp => compare;
    pg_background_role_lt => less;
    pg_background_role_le => less_or_equal;
    pg_background_role_eq => equal;
    pg_background_role_ge => greater_or_equal;
    pg_background_role_gt => greater;
}

/// The role of this name; a missing one is kept by its name. All of these functions are STRICT.
fn input(call: &Call) -> Result<Answer> {
    call.c_string(0).map_or_else(|| call.null(), role::of_text)
}

/// The role's name now, or the last known one.
fn output(call: &Call) -> Result<Answer> {
    let Some(datum) = call.datum(0) else {
        return call.null();
    };
    Ok(Answer::from(role::text_of(datum)?))
}

fn of_oid(call: &Call) -> Result<Answer> {
    call.oid(0).map_or_else(|| call.null(), role::of_number)
}

/// NULL where the role does not exist.
fn to_oid(call: &Call) -> Result<Answer> {
    let Some(datum) = call.datum(0) else {
        return call.null();
    };
    let number = Role::of(datum).number()?;
    number.map_or_else(|| call.null(), |number| call.scalar(Value::Oid(number)))
}

fn to_name(call: &Call) -> Result<Answer> {
    let Some(datum) = call.datum(0) else {
        return call.null();
    };
    let text = role::text_of(datum)?;
    call.scalar(Value::Name(crate::pg::memory::c_bytes(text)))
}

fn order(call: &Call) -> Ordering {
    match (call.datum(0), call.datum(1)) {
        (Some(left), Some(right)) => Role::of(left).compare(&Role::of(right)),
        _ => Ordering::Equal,
    }
}

fn compare(call: &Call) -> Result<Answer> {
    call.scalar(Value::Int4(order(call) as i32))
}

fn less(call: &Call) -> Result<Answer> {
    call.scalar(Value::Bool(order(call).is_lt()))
}

fn less_or_equal(call: &Call) -> Result<Answer> {
    call.scalar(Value::Bool(order(call).is_le()))
}

fn equal(call: &Call) -> Result<Answer> {
    call.scalar(Value::Bool(order(call).is_eq()))
}

fn greater_or_equal(call: &Call) -> Result<Answer> {
    call.scalar(Value::Bool(order(call).is_ge()))
}

fn greater(call: &Call) -> Result<Answer> {
    call.scalar(Value::Bool(order(call).is_gt()))
}
