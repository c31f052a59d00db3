/** Lets entities of a DataSource have columns of the encrypted types; before it is initialised. */
export function register (dataSource) {
  dataSource.driver.supportedDataTypes.push('encrypted_text', 'encrypted_jsonb', 'encrypted_vector')
  return dataSource
}
