//! Settings that somebody is told about, and what only C offers for them (utils/guc.h).

use std::ffi::{CStr, CString};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};

use super::watch::tell;

/// The setting that stands for a session's token; users see it, but only its reset has an effect.
pub fn define_token(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<bool>,
) {
    // SAFETY: the hook neither raises nor calls PostgreSQL; called from _PG_init.
    unsafe {
        GucRegistry::define_bool_guc_with_hooks(
            name,
            short,
            long,
            setting,
            GucContext::Userset,
            GucFlags::DISALLOW_IN_FILE,
            None,
            Some(token_assigned),
            None,
        );
    }
}

unsafe extern "C-unwind" fn token_assigned(given: bool, _: *mut std::ffi::c_void) {
    if !given {
        tell(|watcher| (watcher.token_taken)());
    }
}

/// A string setting of every user; [`super::watch::Watcher::setting_changed`] hears of its changes.
pub fn define_watched(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
) {
    // SAFETY: the hook neither raises nor allocates; called from _PG_init.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            short,
            long,
            setting,
            GucContext::Userset,
            GucFlags::default(),
            None,
            Some(setting_assigned),
            None,
        );
    }
}

unsafe extern "C-unwind" fn setting_assigned(_: *const std::ffi::c_char, _: *mut std::ffi::c_void) {
    tell(|watcher| (watcher.setting_changed)());
}

/// Sets a boolean setting as SET does, or SET LOCAL.
pub fn set_boolean(name: &CStr, value: bool, is_local: bool) {
    let value = if value { c"on" } else { c"off" };
    let action =
        if is_local { pg_sys::GucAction::GUC_ACTION_LOCAL } else { pg_sys::GucAction::GUC_ACTION_SET };
    // SAFETY: both strings end with NUL; inside a transaction.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

/// Reserves the settings prefix, so that a misspelt setting is an error.
pub fn reserve_prefix() {
    // SAFETY: called from _PG_init after the settings are defined.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pgseal".as_ptr()) }
}
