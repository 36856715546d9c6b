/** How the kernel writes paths in proc_pid_mountinfo(5). */

/** Blanks, commas of options and backslashes are written in octal. The text is read as Latin-1; its bytes are UTF-8. */
export function mountinfoText(text: string): string {
  const bytes = text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
  return Buffer.from(bytes, 'latin1').toString('utf8');
}
