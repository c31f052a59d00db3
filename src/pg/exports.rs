//! The C symbols that the SQL scripts name, and the function behind each.

use super::raw::call::sql_functions;
use super::{
    choice, counters, documents, filters, gin, grantees, in_place, keyrings, kms, operators, places, ranges,
    reveal, rewrite, rotation, shared_keys, stats, texts, types, verify,
};

sql_functions! {
    pgseal_jsonb_in => types::jsonb_in;
    pgseal_jsonb_recv => types::jsonb_recv;
    pgseal_text_in => types::text_in;
    pgseal_text_recv => types::text_recv;
    pgseal_out => types::out;
    pgseal_send => types::send;
    pgseal_sealed_text => types::as_sealed_text;
    pgseal_typmod_in => types::typmod_in;
    pgseal_typmod_out => types::typmod_out;

    pgseal_coerce => types::coerce;
    pgseal_seal_jsonb => types::seal_jsonb;
    pgseal_seal_json => types::seal_json;
    pgseal_seal_text => types::seal_text;
    pgseal_seal_bpchar => types::seal_bpchar;
    pgseal_encrypt_jsonb => types::encrypt_jsonb;
    pgseal_encrypt_text => types::encrypt_text;
    pgseal_decrypt => types::decrypt;
    pgseal_decrypt_as => types::decrypt_as;
    pgseal_decrypt_jsonb_as_text => types::decrypt_jsonb_as_text;
    pgseal_decrypt_jsonb_as_name => types::decrypt_jsonb_as_name;
    pgseal_decrypt_text_as_name => types::decrypt_text_as_name;
    pgseal_key_version => types::key_version;
    pgseal_index_key_version => types::index_key_version;
    pgseal_keyring_id => types::keyring_id;

    pgseal_filter_in => filters::filter_in;
    pgseal_filter_out => filters::filter_out;
    pgseal_filter => filters::filter;
    pgseal_filter_any => filters::filter_any;
    pgseal_filter_casefold => filters::filter_casefold;
    pgseal_filter_casefold_support => rewrite::filter_casefold_support;
    pgseal_between_numbers => ranges::between_numbers;
    pgseal_between_times => ranges::between_times;
    pgseal_between_texts => ranges::between_texts;
    pgseal_filter_between_support => rewrite::filter_between_support;
    pgseal_between_support => rewrite::between_support;
    pgseal_filter_between_numbers => ranges::filter_between_numbers;
    pgseal_filter_between_times => ranges::filter_between_times;
    pgseal_filter_between_texts => ranges::filter_between_texts;
    pgseal_filter_between_numbers_for => ranges::filter_between_numbers_for;
    pgseal_filter_between_times_for => ranges::filter_between_times_for;
    pgseal_filter_between_texts_for => ranges::filter_between_texts_for;
    pgseal_filter_for => filters::filter_for;
    pgseal_filter_text => texts::filter_text;
    pgseal_filter_sealed_text => texts::filter_sealed_text;
    pgseal_filter_in_column => filters::filter_in_column;
    pgseal_refresh => filters::refresh;
    pgseal_filter_support => rewrite::filter_support;
    pgseal_filter_any_support => rewrite::filter_any_support;

    pgseal_contains => operators::contains;
    pgseal_chosen => choice::chosen;
    pgseal_each => choice::each;
    pgseal_answers => choice::answers;
    pgseal_chosen_support => rewrite::chosen_support;
    pgseal_operator_support => rewrite::operator_support;
    pgseal_contains_support => rewrite::contains_support;
    pgseal_matches_support => rewrite::matches_support;
    pgseal_equal_support => rewrite::equal_support;
    pgseal_token_match => operators::token_match;
    pgseal_matches => operators::matches;
    pgseal_exact_match => operators::exact_match;
    pgseal_exact_selectivity => stats::exact_selectivity;
    pgseal_exact_join_selectivity => stats::exact_join_selectivity;
    pgseal_token_selectivity => stats::token_selectivity;
    pgseal_token_join_selectivity => stats::token_join_selectivity;
    pgseal_typanalyze => stats::typanalyze;
    pgseal_unsupported => operators::unsupported;

    pgseal_field => documents::field;
    pgseal_element => documents::element;
    pgseal_path => documents::path;
    pgseal_field_text => documents::field_text;
    pgseal_element_text => documents::element_text;
    pgseal_path_text => documents::path_text;
    pgseal_exists => documents::exists;
    pgseal_exists_any => documents::exists_any;
    pgseal_exists_all => documents::exists_all;
    pgseal_concat => documents::concat;
    pgseal_concat_sealed => documents::concat_sealed;
    pgseal_delete => documents::delete;
    pgseal_delete_all => documents::delete_all;
    pgseal_delete_element => documents::delete_element;
    pgseal_delete_path => documents::delete_path;
    pgseal_equal_sealed => documents::equal_sealed;
    pgseal_differ_sealed => documents::differ_sealed;
    pgseal_equal_text => documents::equal_text;
    pgseal_differ_text => documents::differ_text;
    pgseal_text_equal => documents::text_equal;
    pgseal_text_differ => documents::text_differ;
    pgseal_text_lt => documents::text_lt;
    pgseal_text_le => documents::text_le;
    pgseal_text_gt => documents::text_gt;
    pgseal_text_ge => documents::text_ge;
    pgseal_text_like => documents::text_like;
    pgseal_text_not_like => documents::text_not_like;
    pgseal_text_ilike => documents::text_ilike;
    pgseal_text_not_ilike => documents::text_not_ilike;
    pgseal_text_regex => documents::text_regex;
    pgseal_text_not_regex => documents::text_not_regex;
    pgseal_text_iregex => documents::text_iregex;
    pgseal_text_not_iregex => documents::text_not_iregex;

    pgseal_gin_extract_value => gin::extract_value;
    pgseal_gin_extract_query => gin::extract_query;
    pgseal_gin_consistent => gin::consistent;
    pgseal_gin_triconsistent => gin::triconsistent;

    pgseal_grantee_in => grantees::grantee_in;
    pgseal_grantee_out => grantees::grantee_out;
    pgseal_grantee_of => grantees::grantee_of;
    pgseal_grantee_number => grantees::grantee_number;
    pgseal_is_missing => grantees::is_missing;

    pgseal_counter => counters::counter;
    pgseal_shared_keys_held => shared_keys::shared_keys_held;
    pgseal_require_shared_keys => shared_keys::require_shared_keys;
    pgseal_set_kms_token => kms::set_kms_token;
    pgseal_kms_problem => kms::kms_problem;
    pgseal_kms_endpoint => kms::kms_endpoint;

    pgseal_create_keyring => keyrings::create_keyring;
    pgseal_set_default_keyring => keyrings::set_default_keyring;
    pgseal_check_active_keys => keyrings::check_active_keys;
    pgseal_rotate_key => keyrings::rotate_key;
    pgseal_rotate_index_key => keyrings::rotate_index_key;
    pgseal_reveal => reveal::reveal;
    pgseal_searchable_values => keyrings::searchable_values;
    pgseal_set_searchable => keyrings::set_searchable;
    pgseal_rewrap_keys => keyrings::rewrap_keys;
    pgseal_flush_keys => keyrings::flush_keys;
    pgseal_key_tables_changed => keyrings::key_tables_changed;

    pgseal_rewrite_pages => in_place::rewrite_pages;
    pgseal_reseal => rotation::reseal;
    pgseal_reseal_problem => rotation::reseal_problem;
    pgseal_is_current => rotation::is_current;
    pgseal_require_autocommit => rotation::require_autocommit;
    pgseal_exclude_writers => rotation::exclude_writers;
    pgseal_retire_alone => rotation::retire_alone;
    pgseal_runs_for_an_owner => rotation::runs_for_an_owner;
    pgseal_wait_for_transactions => rotation::wait_for_transactions;
    pgseal_may_become => rotation::may_become;
    pgseal_text_holds_key => places::text_holds_key;
    pgseal_column_keys => places::column_keys;
    pgseal_confined => places::confined;
    pgseal_page_values => places::page_values;

    pgseal_check_jsonb => verify::check_jsonb;
    pgseal_check_text => verify::check_text;
    pgseal_head_of => verify::head_of;
}
