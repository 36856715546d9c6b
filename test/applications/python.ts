/** A Python that does one step after the other as it is told, so that a case says in which order several of them act. */

import { until } from '../support/wait.ts';
import type { Seen } from './case.ts';
import { PYTHON } from './needs.ts';
import { Program } from './processes.ts';

/** Reads a line of JSON with code, answers with one: the value of its last line, if that is an expression, or the error. */
const DRIVER = `
import ast, json, sys

def plain(value):
    return value.decode('latin-1') if isinstance(value, bytes) else str(value)

names = {}
for line in sys.stdin:
    try:
        steps = ast.parse(json.loads(line)).body
        value = None
        last = steps.pop() if steps and isinstance(steps[-1], ast.Expr) else None
        exec(compile(ast.Module(steps, []), '<step>', 'exec'), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), '<step>', 'eval'), names)
        answer = {'value': value}
    except Exception as error:
        answer = {'error': f'{type(error).__name__}: {error}'}
    print(json.dumps(answer, default=plain), flush=True)
`;

interface Answer {
  readonly value?: Seen;
  readonly error?: string;
}

export class Python extends Program {
  #asked = 0;

  constructor(dir: string) {
    super(dir, PYTHON, ['-c', DRIVER]);
  }

  /** Runs code in the same names as before: the value of its last line, or the error that it raised, as text. */
  async attempt(code: string): Promise<Seen> {
    const { value, error } = await this.#ask(code);
    return error ?? value ?? null;
  }

  /** The same; rejects when the code raises. */
  async does(code: string): Promise<Seen> {
    const { value, error } = await this.#ask(code);
    if (error !== undefined) throw new Error(`${error}, in ${code.trim()}`);
    return value ?? null;
  }

  async #ask(code: string): Promise<Answer> {
    const index = this.#asked++;
    this.write(`${JSON.stringify(code)}\n`);
    await this.says(new RegExp(`^(?:.*\\n){${index + 1}}`));
    const answer: Answer = JSON.parse(this.stdout.split('\n')[index] ?? '');
    return answer;
  }
}

/** Starts one in a directory, and lets it take a first step. */
export async function python(dir: string, code: string): Promise<Python> {
  const started = new Python(dir);
  await started.does(code);
  return started;
}

/** Lets a Python work as long as something else goes on. */
export async function meanwhile(going: Promise<unknown>, look: () => Promise<void>): Promise<void> {
  let ended = false;
  const end = going.finally(() => {
    ended = true;
  });
  // Its error is told below, once.
  end.catch(() => undefined);
  while (!ended) await look();
  await end;
}

/** Waits until code has a value. */
export async function becomes(process: Python, code: string, value: Seen): Promise<void> {
  let last: Seen = null;
  try {
    await until(code, async () => {
      last = await process.attempt(code);
      return JSON.stringify(last) === JSON.stringify(value);
    });
  } catch (error) {
    throw new Error(`${error instanceof Error ? error.message : error}: it is ${JSON.stringify(last)}`);
  }
}
