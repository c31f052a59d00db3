import { customType } from 'drizzle-orm/pg-core'

const stored = (type, ...options) => {
  const given = options.filter((option) => option !== undefined)
  return given.length ? `${type}(${given.join(', ')})` : type
}

/** A JSON document; objects in and out. */
export const encryptedJsonb = customType({
  dataType: (config) => stored('encrypted_jsonb', config?.keyring),
  toDriver: (value) => JSON.stringify(value)
})

/** A text. */
export const encryptedText = customType({
  dataType: (config) => stored('encrypted_text', config?.keyring)
})

/** An embedding; arrays of numbers in and out. */
export const encryptedVector = customType({
  dataType: (config) => stored('encrypted_vector', config?.keyring, config?.dimensions),
  toDriver: (value) => JSON.stringify(value),
  fromDriver: (value) => JSON.parse(value)
})
