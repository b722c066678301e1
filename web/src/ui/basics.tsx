// The small parts that every page is made of.

import { Component, type ErrorInfo, type ReactNode, useEffect } from "react";
import { Problem } from "../api/client";
import { sentence } from "../lib/format";

/** Names the browser's tab. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · Waybill`;
  }, [title]);
}

/** A titled part of a page. */
export function Card(props: { title: string; id: string; aside?: ReactNode; wide?: boolean; children: ReactNode }) {
  return (
    <section className={props.wide ? "card wide" : "card"} aria-labelledby={props.id}>
      <div className="card-head">
        <h2 id={props.id}>{props.title}</h2>
        {props.aside}
      </div>
      {props.children}
    </section>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <p className="state" role="status">
      Loading {what}…
    </p>
  );
}

export function Empty({ children }: { children: ReactNode }) {
  return <p className="state">{children}</p>;
}

/** Whether the hub refused because of missing rights, which is no fault. */
export function refused(error: Error | null | undefined): boolean {
  return error instanceof Problem && error.status === 403;
}

/** What went wrong, in the hub's own words. A refusal is no alarm: it says what is missing and whom to ask. */
export function Failure({ error, what }: { error: Error; what: string }) {
  if (refused(error)) {
    return (
      <div className="state" role="note">
        <strong>Your role does not let you see {what}.</strong> An administrator of your tenant can give you one that
        does. <span className="why">The hub says: {sentence(error.message)}</span>
      </div>
    );
  }
  return (
    <div className="state bad" role="alert">
      <strong>Could not load {what}.</strong> {sentence(error.message)}
    </div>
  );
}

/**
 * Catches what a page throws while it is drawn, so that the visitor gets words and a way out, never a blank page.
 * Going to another `place` tries again.
 */
export class Boundary extends Component<{ children: ReactNode; place?: string }, { error: Error | undefined }> {
  override state: { error: Error | undefined } = { error: undefined };

  static getDerivedStateFromError(cause: unknown) {
    return { error: cause instanceof Error ? cause : new Error(String(cause)) };
  }

  override componentDidCatch(error: Error, info: ErrorInfo) {
    console.error("the page could not be drawn", error, info.componentStack);
  }

  override componentDidUpdate(previous: { place?: string }) {
    if (this.state.error && previous.place !== this.props.place) this.setState({ error: undefined });
  }

  override render() {
    const { error } = this.state;
    if (!error) return this.props.children;
    return (
      <>
        <h1>This page could not be drawn</h1>
        <div className="state bad" role="alert">
          <strong>A fault in the page, not in the log.</strong> {sentence(error.message)}
        </div>
        <p className="actions">
          <button type="button" onClick={() => location.reload()}>
            Load it again
          </button>
          <a href="/">Home</a>
        </p>
      </>
    );
  }
}

export type Tone = "good" | "bad" | "warn" | "quiet";

/** A word with a colour; the word alone says it all. */
export function Chip({ tone, children }: { tone: Tone; children: ReactNode }) {
  return <span className={`chip ${tone}`}>{children}</span>;
}

/** One column of a Table. */
export interface Column<T> {
  head: string;
  /** The cell; undefined: there is nothing to say, which is a dash in a row and no line in a card. */
  cell: (row: T, index: number) => ReactNode;
  /** Right-aligned figures of one width. */
  number?: boolean;
  /** Names the row; the title when the row becomes a card. */
  name?: boolean;
  /** How much of a card's width it takes, in twelfths; half of it by default. */
  share?: 3 | 4 | 6 | 8;
}

/**
 * A table that shows every column at any width: where its box is too narrow for all of them, each row becomes a card
 * with the head of the column beside every value. `room` says how much it needs: "little" (fits a phone), "some" (six
 * columns), "much" (more). What still does not fit scrolls inside the box, which can be reached with the keyboard.
 */
export function Table<T>(props: {
  label: string;
  room: "little" | "some" | "much";
  columns: readonly Column<T>[];
  rows: readonly T[];
  keyOf: (row: T, index: number) => string;
  mark?: (row: T) => boolean;
}) {
  // The roles are those that the elements have by themselves; browsers drop them when CSS makes cards of the rows.
  return (
    // biome-ignore lint/a11y/useSemanticElements: a scrolling box that takes focus needs a role and a name
    <div className={`scroll room-${props.room}`} tabIndex={0} role="region" aria-label={props.label}>
      {/* biome-ignore lint/a11y/noRedundantRoles: see above */}
      <table role="table">
        {/* biome-ignore lint/a11y/noRedundantRoles: see above */}
        <thead role="rowgroup">
          {/* biome-ignore lint/a11y/noRedundantRoles: see above */}
          <tr role="row">
            {props.columns.map((c) => (
              // biome-ignore lint/a11y/noRedundantRoles: see above
              <th key={c.head} scope="col" role="columnheader" className={c.number ? "number" : undefined}>
                {c.head}
              </th>
            ))}
          </tr>
        </thead>
        {/* biome-ignore lint/a11y/noRedundantRoles: see above */}
        <tbody role="rowgroup">
          {props.rows.map((row, i) => (
            // biome-ignore lint/a11y/noRedundantRoles: see above
            <tr key={props.keyOf(row, i)} role="row" className={props.mark?.(row) ? "chosen" : undefined}>
              {props.columns.map((c) => {
                const content = c.cell(row, i);
                if (c.name) {
                  return (
                    // biome-ignore lint/a11y/noRedundantRoles: see above
                    <th key={c.head} scope="row" role="rowheader">
                      {content}
                    </th>
                  );
                }
                const classes = [`share-${c.share ?? 6}`, c.number && "number", content === undefined && "nothing"]
                  .filter(Boolean)
                  .join(" ");
                return (
                  // biome-ignore lint/a11y/noRedundantRoles: see above
                  <td key={c.head} role="cell" data-head={c.head} className={classes}>
                    {content ?? "–"}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Terms and their values. */
export function Facts({ children, line }: { children: ReactNode; line?: boolean }) {
  return <dl className={line ? "facts line" : "facts"}>{children}</dl>;
}

export function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
