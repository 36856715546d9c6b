/** A picture of ratios: for each of a few questions, how many times as long as on the bare filesystem each place takes. */

import { ratio } from './asking.ts';
import { type PlaceName, placeTitles } from './places.ts';
import { type Bar, barChart } from './plot.ts';
import { type Row, times } from './tables.ts';

interface RatioPlot {
  readonly title: string;
  readonly subtitle: string;
  readonly foot: string;
  readonly rows: readonly Row[];
  readonly places: readonly PlaceName[];
}

export function ratioPlot({ title, subtitle, foot, rows, places }: RatioPlot): string {
  const bars: Bar[] = [];
  for (const { name, answers } of rows) {
    for (const place of places) {
      const value = ratio(answers, place);
      if (!Number.isFinite(value)) continue;
      const ours = place === 'sharedext' || place === 'over';
      // What a step reads is plain from the title.
      const question = name.replace('read ', '');
      bars.push({ name: `${question}, ${placeTitles[place]}`, values: [value], ours, label: times(value) });
    }
  }
  return barChart({ title, subtitle, foot, parts: ['times'], tick: (value) => `${value}`, bars });
}
