// Runs named cases on plain and on encrypted columns and compares what they return.
import assert from 'node:assert'
import { readFileSync } from 'node:fs'

async function answer (question, subject) {
  try {
    return await question(subject)
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

function alike (one, other) {
  try {
    assert.deepStrictEqual(one, other)
    return true
  } catch {
    return false
  }
}

/** Prints what differs and ends the program; nothing may but the ones in refused.txt, which may be errors. */
export async function compare (suite, cases, plain, encrypted) {
  const lines = readFileSync(new URL('refused.txt', import.meta.url), 'utf8').split('\n')
  const refused = lines.filter((line) => line.startsWith(suite + ': ')).map((line) => line.slice(suite.length + 2))
  const wrong = refused.filter((name) => !(name in cases)).map((name) => `${name}: no such case`)
  const works = []
  let same = 0
  for (const [name, question] of Object.entries(cases)) {
    const one = await answer(question, plain)
    const other = await answer(question, encrypted)
    if (one instanceof Error) wrong.push(`${name}: on plain columns: ${one.message}`)
    else if (other instanceof Error) refused.includes(name) || wrong.push(`${name}: ${other.message} ${other.cause?.message ?? ''}`)
    else if (!alike(one, other)) wrong.push(`${name}: SILENT: ${JSON.stringify(other)}, not ${JSON.stringify(one)}`)
    else {
      same += 1
      if (refused.includes(name)) works.push(`${name}: works, take it out of refused.txt`)
    }
  }
  console.log([`${suite}: ${same} of ${Object.keys(cases).length} answers as on plain columns`, ...works, ...wrong].join('\n'))
  process.exit(wrong.length ? 1 : 0)
}
