//! Enums that lie in shared memory as numbers.

/// Gives an enum the way back from its number: `from_number` returns None for a number that no variant has. All variants are named.
macro_rules! numbered {
    ($name:ident { $($variant:ident),* }) => {
        impl $name {
            /// The variant of this number.
            pub(crate) fn from_number(number: u32) -> Option<Self> {
                const ALL: &[$name] = &[$($name::$variant),*];
                // A variant that is not named does not compile.
                let this = |variant: &&$name| match variant {
                    $($name::$variant => number == **variant as u32,)*
                };
                ALL.iter().find(this).copied()
            }
        }
    };
}
