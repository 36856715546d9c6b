/** Colours on terminals, unless NO_COLOR is set (no-color.org). */

const codes = { red: 31, green: 32, yellow: 33, bold: 1, dim: 2 } as const;

export type Colour = keyof typeof codes;

/** Whether what is written to a stream may have colours. */
export function hasColours(stream: { readonly isTTY?: boolean }): boolean {
  const { NO_COLOR, TERM } = process.env;
  return stream.isTTY === true && (NO_COLOR === undefined || NO_COLOR === '') && TERM !== 'dumb';
}

/** Text for standard output, coloured where that is a terminal. */
export function paint(colour: Colour, text: string): string {
  return hasColours(process.stdout) ? `\u001b[${codes[colour]}m${text}\u001b[0m` : text;
}
