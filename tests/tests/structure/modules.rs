//! Reads the modules of one program or library: which names each has, and which paths each writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, UseTree};

/// A module's place: `[]` is the root, `["router", "queue"]` is `crate::router::queue`.
pub(crate) type Place = Vec<String>;

/// All modules of a crate that are compiled without tests.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    pub(crate) by_place: BTreeMap<Place, Module>,
}

#[derive(Debug)]
pub(crate) struct Module {
    /// Its file; that of an inline module is its parent's.
    pub(crate) file: PathBuf,
    /// The module that has the file for itself.
    pub(crate) owner: Place,
    pub(crate) names: BTreeMap<String, Vec<Name>>,
    /// The paths before `::*`.
    pub(crate) globs: Vec<Vec<String>>,
    pub(crate) mentions: Vec<Mention>,
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub(crate) enum Name {
    Module(Place),
    Item,
    Import(Vec<String>),
}

/// A path in the text.
#[derive(Debug)]
pub(crate) struct Mention {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
    pub(crate) by_use: bool,
}

/// Where the texts of files come from: a disk, or a test.
pub(crate) trait Files {
    fn read(&self, file: &Path) -> Option<String>;
}

impl Modules {
    /// Reads the crate whose root is this file.
    pub(crate) fn read(files: &dyn Files, root: &Path) -> Self {
        let mut modules = Self::default();
        let folder = root.parent().unwrap_or(Path::new("")).to_path_buf();
        modules.read_file(files, root.to_path_buf(), folder, Place::new());
        modules
    }

    /// `folder` holds the files of its sub-modules.
    fn read_file(&mut self, files: &dyn Files, file: PathBuf, folder: PathBuf, place: Place) {
        let text = files
            .read(&file)
            .unwrap_or_else(|| panic!("{} cannot be read", file.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut reader = Reader {
            modules: self,
            file,
            owner: place.clone(),
            place: place.clone(),
            blocks: 0,
            in_files: Vec::new(),
        };
        reader.enter(place);
        reader.visit_file(&parsed);
        for module in reader.in_files {
            // Between the place of the file and that of the module there may be inline modules, which are folders.
            let mut inner = folder.clone();
            inner.extend(&module[reader.owner.len()..]);
            let name = module.last().expect("the root is not a sub-module");
            let beside = inner.with_file_name(format!("{name}.rs"));
            let within = inner.join("mod.rs");
            let file = if files.read(&beside).is_some() { beside } else { within };
            reader.modules.read_file(files, file, inner, module);
        }
    }
}

struct Reader<'a> {
    modules: &'a mut Modules,
    file: PathBuf,
    owner: Place,
    place: Place,
    /// How many blocks of functions are around. The names of items in them are nobody else's.
    blocks: usize,
    /// Sub-modules with files of their own.
    in_files: Vec<Place>,
}

impl Reader<'_> {
    fn enter(&mut self, place: Place) {
        let module = Module {
            file: self.file.clone(),
            owner: self.owner.clone(),
            names: BTreeMap::new(),
            globs: Vec::new(),
            mentions: Vec::new(),
        };
        self.modules.by_place.insert(place.clone(), module);
        self.place = place;
    }

    fn module(&mut self) -> &mut Module {
        self.modules.by_place.get_mut(&self.place).expect("it was entered")
    }

    fn name(&mut self, ident: &syn::Ident, name: Name) {
        let ident = plain(ident);
        self.module().names.entry(ident).or_default().push(name);
    }

    fn item(&mut self, ident: &syn::Ident) {
        if self.blocks == 0 {
            self.name(ident, Name::Item);
        }
    }

    fn mention(&mut self, path: Vec<String>, line: usize, by_use: bool) {
        self.module().mentions.push(Mention { path, line, by_use });
    }

    fn import(&mut self, tree: &UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| {
            let mut path = before.to_vec();
            // `use a::{self}` is `use a`.
            if ident != "self" || before.is_empty() {
                path.push(plain(ident));
            }
            path
        };
        match tree {
            UseTree::Path(tree) => self.import(&tree.tree, &with(&tree.ident)),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, before)),
            UseTree::Name(tree) => {
                let path = with(&tree.ident);
                if let Some(last) = path.last().cloned() {
                    let names = &mut self.module().names;
                    names.entry(last).or_default().push(Name::Import(path.clone()));
                }
                self.mention(path, tree.ident.span().start().line, true);
            }
            UseTree::Rename(tree) => {
                let path = with(&tree.ident);
                self.name(&tree.rename, Name::Import(path.clone()));
                self.mention(path, tree.ident.span().start().line, true);
            }
            UseTree::Glob(_) => self.module().globs.push(before.to_vec()),
        }
    }

    /// What stands in the brackets of a macro is not parsed: whatever looks like a path counts as one.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons, mut within) = (0, 0, false);
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(ident) => {
                    if colons == 2 && !path.is_empty() {
                        path.push(plain(&ident));
                    } else {
                        self.seen_in_tokens(&mut path, line);
                        // Not a field, a method, or a path from outside the crate.
                        if !within && colons != 2 {
                            line = ident.span().start().line;
                            path.push(plain(&ident));
                        }
                    }
                    within = false;
                }
                TokenTree::Group(group) => {
                    self.seen_in_tokens(&mut path, line);
                    self.tokens(group.stream());
                    within = false;
                }
                TokenTree::Punct(punct) => {
                    self.seen_in_tokens(&mut path, line);
                    within = punct.as_char() == '.';
                }
                TokenTree::Literal(_) => {
                    self.seen_in_tokens(&mut path, line);
                    within = false;
                }
            }
            colons = 0;
        }
        self.seen_in_tokens(&mut path, line);
    }

    fn seen_in_tokens(&mut self, path: &mut Vec<String>, line: usize) {
        // A lone word may be anything; with a capital it is a type or a constant.
        let counts = path.len() > 1 || path.first().is_some_and(|word| word.starts_with(char::is_uppercase));
        let path = std::mem::take(path);
        if counts {
            self.mention(path, line, false);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test(attributes(item)) {
            return;
        }
        match item {
            Item::Const(item) => self.item(&item.ident),
            Item::Enum(item) => self.item(&item.ident),
            Item::Fn(item) => self.item(&item.sig.ident),
            Item::Static(item) => self.item(&item.ident),
            Item::Struct(item) => self.item(&item.ident),
            Item::Trait(item) => self.item(&item.ident),
            Item::TraitAlias(item) => self.item(&item.ident),
            Item::Type(item) => self.item(&item.ident),
            Item::Union(item) => self.item(&item.ident),
            Item::Macro(item) => {
                if let Some(ident) = &item.ident {
                    self.item(ident);
                }
            }
            Item::Use(item) => {
                if item.leading_colon.is_none() {
                    self.import(&item.tree, &[]);
                }
                return;
            }
            Item::Mod(item) => {
                let path_attribute = item.attrs.iter().any(|attribute| attribute.path().is_ident("path"));
                assert!(
                    !path_attribute,
                    "{}: `#[path]` hides where a module is",
                    self.file.display()
                );
                let mut place = self.place.clone();
                place.push(plain(&item.ident));
                self.name(&item.ident, Name::Module(place.clone()));
                match &item.content {
                    None => self.in_files.push(place),
                    Some((_, items)) => {
                        let outer = std::mem::take(&mut self.place);
                        self.enter(place);
                        items.iter().for_each(|item| self.visit_item(item));
                        self.place = outer;
                    }
                }
                return;
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.blocks += 1;
        visit::visit_block(self, block);
        self.blocks -= 1;
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let (None, Some(first)) = (&path.leading_colon, path.segments.first()) {
            let words = path.segments.iter().map(|segment| plain(&segment.ident)).collect();
            self.mention(words, first.ident.span().start().line, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, makro: &'ast syn::Macro) {
        self.visit_path(&makro.path);
        self.tokens(makro.tokens.clone());
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_test(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        if !is_test(&field.attrs) {
            visit::visit_field_value(self, field);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_test(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_expr_block(&mut self, block: &'ast syn::ExprBlock) {
        if !is_test(&block.attrs) {
            visit::visit_expr_block(self, block);
        }
    }
}

/// `r#type` is `type`.
fn plain(ident: &syn::Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map_or(text.clone(), Into::into)
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether something is only there for tests: `#[test]`, `#[cfg(test)]`, `#[cfg(all(test, …))]`.
fn is_test(attributes: &[Attribute]) -> bool {
    fn needs_test(condition: TokenStream) -> bool {
        let mut tokens = condition.into_iter();
        match (tokens.next(), tokens.next()) {
            (Some(TokenTree::Ident(word)), None) => word == "test",
            (Some(TokenTree::Ident(word)), Some(TokenTree::Group(group))) if word == "all" => {
                let parts: Vec<_> = group.stream().into_iter().collect();
                let comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
                parts
                    .split(comma)
                    .any(|part| needs_test(part.iter().cloned().collect()))
            }
            _ => false,
        }
    }
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) => list.path.is_ident("cfg") && needs_test(list.tokens.clone()),
        Meta::NameValue(_) => false,
    })
}
