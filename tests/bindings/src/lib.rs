//! Translates C declarations in Rust source into assertions for a C++ compiler, which reads the headers.
//!
//! * Each foreign function and variable has the type that the headers declare. Types are compared by their machine representation: `const`
//!   does not count, and an enumeration is an unsigned integer.
//! * A struct whose documentation names its twin in C (``/// `Dl_info` of `dlfcn.h`.``) has the same fields and the same size.
//! * A constant has the value of the name that its documentation gives in the same way, or of the macro of its own name, or of that with
//!   `OID` after it.
//!
//! The headers to include are those that the source mentions anywhere.

use proc_macro2::TokenStream;
use quote::ToTokens;
use std::collections::{BTreeSet, HashMap};
use syn::visit::{self, Visit};
use syn::{Attribute, FnArg, ForeignItem, Meta, ReturnType, Type, UseTree};

/// The beginning of each C++ program: `same<A, B>` is whether two types have the same machine representation.
const PRELUDE: &str = r#"
#include <cstddef>
#include <cstdint>
#include <type_traits>
extern "C" {
#include "postgres.h"
HEADERS
}
#define SPELLED(name) SPELLED_(name)
#define SPELLED_(name) #name
namespace check {
template <class T> struct pass { typedef T type; };
template <class T> struct plain { typedef typename std::conditional<std::is_enum<T>::value, unsigned, T>::type type; };
template <class T> struct norm : plain<typename std::remove_cv<T>::type> {};
template <class T> struct norm<T *> { typedef typename norm<typename std::remove_cv<T>::type>::type *type; };
template <class R, class... A> struct norm<R(A...)> { typedef typename norm<R>::type type(typename norm<A>::type...); };
template <class R, class... A> struct norm<R(A..., ...)> { typedef typename norm<R>::type type(typename norm<A>::type..., ...); };
template <class A, class B> constexpr bool same() {
    return std::is_same<typename norm<typename std::remove_cv<A>::type>::type,
        typename norm<typename std::remove_cv<B>::type>::type>::value;
}
constexpr long first_number(const char *text) {
    while (*text && (*text < '0' || *text > '9')) ++text;
    long number = 0;
    while (*text >= '0' && *text <= '9') number = number * 10 + (*text++ - '0');
    return number;
}
}
"#;

/// The assertions of some source, for one major version of PostgreSQL.
pub struct Program {
    major: u32,
    headers: BTreeSet<String>,
    assertions: Vec<String>,
}

impl Program {
    pub fn new(major: u32) -> Self {
        Self {
            major,
            headers: BTreeSet::new(),
            assertions: Vec::new(),
        }
    }

    /// Adds the declarations of a file. Failures call the file `name`.
    pub fn add(&mut self, name: &str, source: &str) -> syn::Result<()> {
        let file = syn::parse_file(source)?;
        let word = |c: char| c.is_ascii_alphanumeric() || "_-/.".contains(c);
        let mentioned = source.split(|c| !word(c)).map(|text| text.trim_end_matches('.'));
        self.headers.extend(
            mentioned
                .filter(|text| text.len() > 2 && text.ends_with(".h"))
                .map(str::to_owned),
        );
        let mut found = Found {
            major: self.major,
            file: name,
            twins: HashMap::new(),
            assertions: &mut self.assertions,
        };
        found.visit_file(&file);
        Ok(())
    }

    /// How many assertions there are.
    pub fn len(&self) -> usize {
        self.assertions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.assertions.is_empty()
    }

    /// Returns the C++ program. A header that a version lacks is omitted: if a declaration needed it, the compiler reports that one.
    pub fn text(&self) -> String {
        let headers: String = self
            .headers
            .iter()
            .map(|header| format!("#if __has_include(\"{header}\")\n#include \"{header}\"\n#endif\n"))
            .collect();
        PRELUDE.replace("HEADERS\n", &headers) + &self.assertions.join("\n") + "\n"
    }
}

struct Found<'a> {
    major: u32,
    file: &'a str,
    /// The C name of a type that has another name here.
    twins: HashMap<String, String>,
    assertions: &'a mut Vec<String>,
}

impl<'ast> Visit<'ast> for Found<'_> {
    fn visit_file(&mut self, file: &'ast syn::File) {
        // First the names: they may be used above their declaration.
        for item in &file.items {
            match item {
                syn::Item::Struct(item) => {
                    if let Some(twin) = twin(&item.attrs) {
                        self.twins.insert(item.ident.to_string(), twin.name);
                    }
                }
                syn::Item::Use(item) if self.active(&item.attrs) => self.renamed(&item.tree),
                _ => {}
            }
        }
        visit::visit_file(self, file);
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        self.declared(&item.attrs, &item.mac);
    }

    fn visit_stmt_macro(&mut self, statement: &'ast syn::StmtMacro) {
        self.declared(&statement.attrs, &statement.mac);
    }

    fn visit_item_foreign_mod(&mut self, block: &'ast syn::ItemForeignMod) {
        if !self.active(&block.attrs) {
            return;
        }
        for item in &block.items {
            match item {
                ForeignItem::Fn(item) if self.active(&item.attrs) => {
                    let inputs = item.sig.inputs.iter().filter_map(|input| match input {
                        FnArg::Typed(input) => Some(&*input.ty),
                        FnArg::Receiver(_) => None,
                    });
                    let declared = self.function(inputs, item.sig.variadic.is_some(), &item.sig.output);
                    let name = &item.sig.ident;
                    self.assert(
                        &name.to_string(),
                        &format!("check::same<std::remove_pointer<decltype(&{name})>::type, {declared}>()"),
                    );
                }
                ForeignItem::Static(item) if self.active(&item.attrs) => {
                    let (name, declared) = (&item.ident, self.c_type(&item.ty));
                    self.assert(
                        &name.to_string(),
                        &format!("check::same<decltype({name}), check::pass<{declared}>::type>()"),
                    );
                }
                _ => {}
            }
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        let Some(twin) = twin(&item.attrs).filter(|_| self.active(&item.attrs)) else {
            return;
        };
        let mut fields = String::new();
        for field in &item.fields {
            let (name, declared) = (field.ident.to_token_stream(), self.c_type(&field.ty));
            fields += &format!("check::pass<{declared}>::type {name}; ");
            self.assert(
                &format!("{}.{name}", item.ident),
                &format!(
                    "check::same<decltype({twin}::{name}), check::pass<{declared}>::type>() \
                     && offsetof({twin}, {name}) == offsetof(twin_of_{twin}, {name})",
                    twin = twin.name
                ),
            );
        }
        let at = self.assertions.len() - item.fields.len();
        self.assertions
            .insert(at, format!("struct twin_of_{} {{ {fields}}};", twin.name));
        self.assert(
            &item.ident.to_string(),
            &format!("sizeof({twin}) == sizeof(twin_of_{twin})", twin = twin.name),
        );
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        if !self.active(&item.attrs) {
            return;
        }
        let Some(value) = number(item.expr.to_token_stream()) else {
            return;
        };
        let name = item.ident.to_string();
        match twin(&item.attrs) {
            Some(twin) => {
                let relation = if twin.at_least { ">=" } else { "==" };
                let theirs = if twin.index {
                    format!("check::first_number(SPELLED({}))", twin.name)
                } else {
                    format!("(long long) ({})", twin.name)
                };
                self.assert(&name, &format!("({value}) {relation} {theirs}"));
            }
            None => {
                for macro_name in [name.clone(), format!("{name}OID")] {
                    self.assertions.push(format!("#ifdef {macro_name}"));
                    self.assert(&name, &format!("({value}) == (long long) ({macro_name})"));
                    self.assertions.push("#endif".to_owned());
                }
            }
        }
    }
}

impl Found<'_> {
    /// The arguments of the macro `may_raise` are those of a block of foreign functions.
    fn declared(&mut self, attributes: &[Attribute], call: &syn::Macro) {
        if call.path.is_ident("may_raise") && self.active(attributes) {
            let tokens = &call.tokens;
            let block = syn::parse_str(&format!("unsafe extern \"C-unwind\" {{ {tokens} }}"));
            Visit::visit_item_foreign_mod(self, &block.expect("foreign functions"));
        }
    }

    fn assert(&mut self, what: &str, condition: &str) {
        self.assertions.push(format!(
            "static_assert({condition}, \"{file}: {what} is not as the headers have it\");",
            file = self.file
        ));
    }

    /// Whether the conditions on `since_NN` among the attributes hold for the version.
    fn active(&self, attributes: &[Attribute]) -> bool {
        attributes
            .iter()
            .filter(|attribute| attribute.path().is_ident("cfg"))
            .all(|attribute| match &attribute.meta {
                Meta::List(list) => self.holds(&list.tokens.to_string()),
                _ => true,
            })
    }

    fn holds(&self, condition: &str) -> bool {
        let condition: String = condition.split_whitespace().collect();
        if let Some(inner) = condition.strip_prefix("not(").and_then(|rest| rest.strip_suffix(')')) {
            return !self.holds(inner);
        }
        match condition.strip_prefix("since_").map(str::parse::<u32>) {
            Some(Ok(version)) => self.major >= version,
            _ => condition != "test",
        }
    }

    fn renamed(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => self.renamed(&path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.renamed(tree)),
            UseTree::Rename(rename) => {
                self.twins.insert(rename.rename.to_string(), rename.ident.to_string());
            }
            UseTree::Name(_) | UseTree::Glob(_) => {}
        }
    }

    fn function<'t>(&self, inputs: impl Iterator<Item = &'t Type>, variadic: bool, output: &ReturnType) -> String {
        let mut inputs: Vec<_> = inputs
            .map(|input| format!("check::pass<{}>::type", self.c_type(input)))
            .collect();
        if variadic {
            inputs.push("...".to_owned());
        }
        let output = match output {
            ReturnType::Default => "void".to_owned(),
            ReturnType::Type(_, output) => self.c_type(output),
        };
        format!("check::pass<{output}>::type({})", inputs.join(", "))
    }

    /// The type in C.
    fn c_type(&self, of: &Type) -> String {
        match of {
            Type::Ptr(pointer) => format!("check::pass<{}>::type *", self.c_type(&pointer.elem)),
            Type::Never(_) => "void".to_owned(),
            Type::BareFn(function) => {
                let inputs = function.inputs.iter().map(|input| &input.ty);
                format!("{} *", self.function_type(inputs, function))
            }
            Type::Path(path) => {
                let segments: Vec<_> = path.path.segments.iter().collect();
                let last = segments[segments.len() - 1];
                let name = last.ident.to_string();
                // An optional function pointer is one that may be NULL; an enumeration of pgrx's is a module with its type.
                if name == "Option"
                    && let syn::PathArguments::AngleBracketed(of) = &last.arguments
                    && let Some(syn::GenericArgument::Type(inner)) = of.args.first()
                {
                    return self.c_type(inner);
                }
                let name = match name.as_str() {
                    "Type" if segments.len() > 1 => segments[segments.len() - 2].ident.to_string(),
                    _ => name,
                };
                match name.as_str() {
                    "c_char" => "char",
                    "c_int" => "int",
                    "c_long" => "long",
                    "c_void" => "void",
                    "usize" => "size_t",
                    "bool" => "bool",
                    "u8" => "uint8_t",
                    "i16" => "int16_t",
                    "u16" => "uint16_t",
                    "i32" => "int32_t",
                    "u32" => "uint32_t",
                    "i64" => "int64_t",
                    "u64" => "uint64_t",
                    "f64" => "double",
                    other => self.twins.get(other).map_or(other, String::as_str),
                }
                .to_owned()
            }
            other => format!("a type that is not known: {}", other.to_token_stream()),
        }
    }

    fn function_type<'t>(&self, inputs: impl Iterator<Item = &'t Type>, function: &syn::TypeBareFn) -> String {
        format!(
            "check::pass<{}>::type",
            self.function(inputs, function.variadic.is_some(), &function.output)
        )
    }
}

/// The item of C that the documentation names.
struct Twin {
    name: String,
    /// The item is the first number in the macro's text.
    index: bool,
    /// The item may be larger.
    at_least: bool,
}

/// ``/// `NAME` of `header.h` …``, with `The index of` or `At or above` before it where it is so.
fn twin(attributes: &[Attribute]) -> Option<Twin> {
    let doc = attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit {
                lit: syn::Lit::Str(text),
                ..
            }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })?;
    let doc = doc.trim();
    let (index, doc) = (
        doc.starts_with("The index of "),
        doc.trim_start_matches("The index of "),
    );
    let (at_least, doc) = (doc.starts_with("At or above "), doc.trim_start_matches("At or above "));
    let (name, rest) = doc.strip_prefix('`')?.split_once('`')?;
    let header = rest.strip_prefix(" of `")?.split('`').next()?;
    header.ends_with(".h").then(|| Twin {
        name: name.to_owned(),
        index,
        at_least,
    })
}

/// Translates an expression that has only integers into C.
fn number(expression: TokenStream) -> Option<String> {
    let mut text = String::new();
    for token in expression {
        match token {
            proc_macro2::TokenTree::Literal(literal) => {
                let digits = literal.to_string().replace('_', "");
                if !digits.chars().all(|c| c.is_ascii_hexdigit() || c == 'x') {
                    return None;
                }
                text += &format!("{digits}LL");
            }
            proc_macro2::TokenTree::Punct(punct) if "+-*<>".contains(punct.as_char()) => text.push(punct.as_char()),
            _ => return None,
        }
    }
    (!text.is_empty()).then_some(text)
}
