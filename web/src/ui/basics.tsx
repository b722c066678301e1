// The small parts that every page is made of.

import { type ReactNode, useEffect } from "react";
import { Problem } from "../api/client";

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

/** What went wrong, in the hub's own words; a refusal says whom to ask. */
export function Failure({ error, what }: { error: Error; what: string }) {
  const status = error instanceof Problem ? error.status : undefined;
  return (
    <div className="state bad" role="alert">
      <strong>{status === 403 ? `You may not see ${what}.` : `Could not load ${what}.`}</strong> {error.message}
      {status === 403 && " Ask an administrator of your tenant for a role that may."}
    </div>
  );
}

export type Tone = "good" | "bad" | "warn" | "quiet";

/** A word with a colour; the word alone says it all. */
export function Chip({ tone, children }: { tone: Tone; children: ReactNode }) {
  return <span className={`chip ${tone}`}>{children}</span>;
}

/** A table that scrolls sideways inside its own box and can be reached with the keyboard. */
export function Table(props: { label: string; head: ReactNode; children: ReactNode }) {
  return (
    // biome-ignore lint/a11y/useSemanticElements: a scrolling box that takes focus needs a role and a name
    <div className="scroll" tabIndex={0} role="region" aria-label={props.label}>
      <table>
        <thead>{props.head}</thead>
        <tbody>{props.children}</tbody>
      </table>
    </div>
  );
}

/** Terms and their values. */
export function Facts({ children }: { children: ReactNode }) {
  return <dl className="facts">{children}</dl>;
}

export function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
