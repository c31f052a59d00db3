//! What event triggers are called for: CREATE INDEX before it runs (commands/event_trigger.h), and which columns an ALTER
//! TABLE that has run made (tcop/deparse_utility.h).

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::null_mut;

use pgrx::{PgMemoryContexts, is_a, pg_guard, pg_sys};

use super::call::Call;
use super::datum::type_id_name;
use super::lookup;
use super::reveal::cells;
use super::unbound::is_encrypted;
use super::version::{self, ADDS_COLUMN};

/// A CREATE INDEX that is about to run, on a table that is there.
#[derive(Clone, Copy)]
pub struct CreateIndex {
    statement: *mut pg_sys::IndexStmt,
    /// The table as its name is resolved now.
    pub table: pg_sys::Oid,
}

/// What stands between the parentheses of CREATE INDEX, one column or expression.
pub struct Element {
    /// The encrypted columns that it names, each with what it is made from: `jsonb`, `text` or `vector`.
    pub sealed: Vec<(String, String)>,
    /// The operator class without its schema; empty where none is given.
    pub class: String,
    /// It is a column and nothing else.
    pub is_column: bool,
}

/// The statement that an event trigger's function is called for; `None` where that is no CREATE INDEX, or none of a table
/// that is there.
pub fn create_index(call: Call) -> Option<CreateIndex> {
    // SAFETY: an event trigger's function gets EventTriggerData as its context, whose tag is checked, with the statement
    // that is about to run. No lock: a table that changes until then only makes the index fail, or one that none needed.
    unsafe {
        let context = (*call.frame()).context;
        if context.is_null() || !is_a(context, pg_sys::NodeTag::T_EventTriggerData) {
            return None;
        }
        let statement = (*context.cast::<pg_sys::EventTriggerData>()).parsetree;
        if statement.is_null() || !is_a(statement, pg_sys::NodeTag::T_IndexStmt) {
            return None;
        }
        let statement = statement.cast::<pg_sys::IndexStmt>();
        let (lock, flags) = (pg_sys::NoLock as i32, pg_sys::RVROption::RVR_MISSING_OK);
        let table = pg_sys::RangeVarGetRelidExtended((*statement).relation, lock, flags, None, null_mut());
        (table != pg_sys::InvalidOid).then_some(CreateIndex { statement, table })
    }
}

impl CreateIndex {
    /// The name that is given, or what PostgreSQL calls it then.
    pub fn name(&self) -> String {
        // SAFETY: the statement outlives the call; NULL where no name is given.
        unsafe {
            if (*self.statement).idxname.is_null() { "index".into() } else { text((*self.statement).idxname) }
        }
    }

    /// The access method.
    pub fn method(&self) -> String {
        // SAFETY: the parser always sets it.
        unsafe { text((*self.statement).accessMethod) }
    }

    /// It is to be unique.
    pub fn is_unique(&self) -> bool {
        // SAFETY: the statement outlives the call.
        unsafe { (*self.statement).unique }
    }

    /// Its columns and expressions, in order.
    pub fn elements(&self) -> Vec<Element> {
        // SAFETY: the list holds elements, each with a name or an expression, and a class of which the last part is a name.
        unsafe {
            let elements = cells::<pg_sys::IndexElem>((*self.statement).indexParams);
            elements
                .map(|element| {
                    let mut names = Vec::<CString>::new();
                    if !(*element).name.is_null() {
                        names.push(CStr::from_ptr((*element).name).to_owned());
                    }
                    find_names((*element).expr, (&raw mut names).cast());
                    let sealed = names.iter().filter_map(|name| self.sealed(name)).collect();
                    let class = cells::<pg_sys::Node>((*element).opclass).last();
                    let class =
                        class.map_or_else(String::new, |node| text((*node.cast::<pg_sys::String>()).sval));
                    Element { sealed, class, is_column: !(*element).name.is_null() }
                })
                .collect()
        }
    }

    unsafe fn sealed(&self, column: &CStr) -> Option<(String, String)> {
        // SAFETY: syscache lookups; no column of the name is number 0.
        unsafe {
            let number = pg_sys::get_attnum(self.table, column.as_ptr());
            if number <= 0 {
                return None;
            }
            let of = pg_sys::getBaseType(pg_sys::get_atttype(self.table, number));
            let kind = type_id_name(of).strip_prefix("encrypted_")?.to_owned();
            is_encrypted(of).then(|| (column.to_string_lossy().into_owned(), kind))
        }
    }

    /// Leaves elements out.
    pub fn keep(&self, kept: &[bool]) {
        // SAFETY: PostgreSQL copies a statement of a plan that it keeps before it runs it; this one is its own.
        unsafe {
            let list = (*self.statement).indexParams;
            let elements = cells::<pg_sys::IndexElem>(list).zip(kept).filter(|(_, kept)| **kept);
            let elements: Vec<_> = elements.map(|(element, _)| element.cast::<c_void>()).collect();
            lasting(|| {
                (*self.statement).indexParams =
                    elements.iter().fold(null_mut(), |list, one| pg_sys::lappend(list, *one));
            });
        }
    }

    /// Makes it an index of another method on columns, with an operator class in the schema of the column's type, or the
    /// method's own. Options and INCLUDE go, which are for the method that it had.
    pub fn become_method(&self, method: &CStr, columns: &[String], class: Option<&CStr>) {
        // SAFETY: as for `keep`. The schema of a column's type exists.
        unsafe {
            lasting(|| {
                let mut list = null_mut();
                for column in columns {
                    let column = CString::new(column.as_str()).unwrap_or_default();
                    let element = pg_sys::palloc0(size_of::<pg_sys::IndexElem>()).cast::<pg_sys::IndexElem>();
                    (*element).type_ = pg_sys::NodeTag::T_IndexElem;
                    (*element).name = pg_sys::pstrdup(column.as_ptr());
                    let of = pg_sys::get_atttype(self.table, pg_sys::get_attnum(self.table, column.as_ptr()));
                    if let (Some(class), Some(schema)) =
                        (class, lookup::schema_of_type(pg_sys::getBaseType(of)))
                    {
                        let parts = [pg_sys::get_namespace_name(schema), pg_sys::pstrdup(class.as_ptr())];
                        (*element).opclass = parts.into_iter().fold(null_mut(), |list, part| {
                            pg_sys::lappend(list, pg_sys::makeString(part).cast())
                        });
                    }
                    list = pg_sys::lappend(list, element.cast());
                }
                (*self.statement).indexParams = list;
                (*self.statement).accessMethod = pg_sys::pstrdup(method.as_ptr());
                (*self.statement).indexIncludingParams = null_mut();
                (*self.statement).options = null_mut();
            });
        }
    }
}

/// Allocates what outlives the event trigger: its own memory goes when the function returns.
unsafe fn lasting(build: impl FnOnce()) {
    // SAFETY: the portal's memory lives as long as the statement, or the transaction's where there is no portal.
    unsafe {
        let context = if pg_sys::PortalContext.is_null() {
            pg_sys::TopTransactionContext
        } else {
            pg_sys::PortalContext
        };
        PgMemoryContexts::For(context).switch_to(|_| build());
    }
}

/// Collects the names of columns in an expression that is not analysed.
#[pg_guard]
unsafe extern "C-unwind" fn find_names(node: *mut pg_sys::Node, names: *mut c_void) -> bool {
    // SAFETY: `names` is the caller's list. A ColumnRef begins with a name, or is a star.
    unsafe {
        if node.is_null() {
            return false;
        }
        if is_a(node, pg_sys::NodeTag::T_ColumnRef) {
            let last = cells::<pg_sys::Node>((*node.cast::<pg_sys::ColumnRef>()).fields).last();
            if let Some(last) = last.filter(|last| is_a(*last, pg_sys::NodeTag::T_String)) {
                let name = CStr::from_ptr((*last.cast::<pg_sys::String>()).sval);
                (*names.cast::<Vec<CString>>()).push(name.to_owned());
            }
            return false;
        }
        version::walk_raw(node, find_names, names)
    }
}

unsafe fn text(name: *const c_char) -> String {
    // SAFETY: a string that ends with NUL.
    unsafe { CStr::from_ptr(name).to_string_lossy().into_owned() }
}

/// The columns that an ALTER TABLE has added or given another type: number, and whether every row has NULL in it for sure
/// unless a default says otherwise.
pub fn changed_columns(call: Call) -> Vec<(i32, bool)> {
    let command = call.pointer::<pg_sys::CollectedCommand>(0);
    // SAFETY: a pg_ddl_command is such a pointer, made by pg_event_trigger_ddl_commands() and nobody else. Its kind says
    // which part of the union it uses; each subcommand has the node of an ALTER TABLE, and the address of what it changed.
    unsafe {
        if (*command).type_ != pg_sys::CollectedCommandType::SCT_AlterTable {
            return Vec::new();
        }
        let alter = (*command).d.alterTable;
        let parts: Vec<(pg_sys::AlterTableType::Type, pg_sys::ObjectAddress)> =
            cells::<pg_sys::CollectedATSubcmd>(alter.subcmds)
                .map(|part| ((*(*part).parsetree.cast::<pg_sys::AlterTableCmd>()).subtype, (*part).address))
                .collect();
        let has_default = parts.iter().any(|(kind, _)| *kind == pg_sys::AlterTableType::AT_ColumnDefault);
        let changed = parts.iter().filter_map(|(kind, of)| {
            let adds = ADDS_COLUMN.contains(kind);
            let changes = adds || *kind == pg_sys::AlterTableType::AT_AlterColumnType;
            (changes && of.objectId == alter.objectId && of.objectSubId > 0)
                .then_some((of.objectSubId, adds && !has_default))
        });
        changed.collect()
    }
}
