// Who looks at the pages. A token comes from the form, or from the fragment of a link ("#token=…"), which browsers
// never send to a server and which is taken out of the address at once. A token that the hub refuses, whenever that
// happens, ends the session: nothing of it stays on the screen.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { createContext, type ReactNode, useCallback, useContext, useEffect, useMemo, useRef, useState } from "react";
import { api, data, token, whenUnauthorized } from "./api/client";
import type { WhoAmI } from "./api/types";
import { sentence } from "./lib/format";

interface Session {
  who: WhoAmI | undefined;
  pending: boolean;
  /** Why there is no session, in a sentence; "" when nobody tried to sign in. */
  reason: string;
  signIn: (value: string) => void;
  signOut: () => void;
}

const Context = createContext<Session | undefined>(undefined);

/** Takes "#token=…" out of the address bar and returns it; undefined when there is none. */
function takeTokenFromAddress(): string | undefined {
  const match = /^#token=([A-Za-z0-9_-]+)$/.exec(location.hash);
  if (match) history.replaceState(history.state, "", location.pathname + location.search);
  return match?.[1];
}

/** Signs in with the token of the link that opened the page, before anything is drawn. */
export function signInFromAddress(): void {
  const value = takeTokenFromAddress();
  if (value) token.set(value);
}

export function SessionProvider({ children }: { children: ReactNode }) {
  const queries = useQueryClient();
  const [secret, setSecret] = useState(token.get);
  const [refusal, setRefusal] = useState("");
  const had = useRef(false);
  const who = useQuery({
    queryKey: ["whoami", secret],
    queryFn: () => data(api.GET("/v1/whoami")),
    enabled: secret !== "",
    staleTime: 60_000,
  });
  if (who.data) had.current = true;
  const change = useCallback(
    (value: string, reason = "") => {
      if (value) token.set(value);
      else token.clear();
      had.current = false;
      queries.clear();
      setRefusal(reason);
      setSecret(value);
    },
    [queries],
  );
  useEffect(() => {
    whenUnauthorized((reason) =>
      change("", had.current ? `Your session has ended: ${sentence(reason)} Sign in again.` : sentence(reason)),
    );
    return () => whenUnauthorized(undefined);
  }, [change]);
  useEffect(() => {
    // A link with a token that is opened in a tab with these pages changes the fragment only; nothing loads anew.
    const take = () => {
      const value = takeTokenFromAddress();
      if (value && value !== token.get()) change(value);
    };
    window.addEventListener("hashchange", take);
    return () => window.removeEventListener("hashchange", take);
  }, [change]);
  const session = useMemo<Session>(
    () => ({
      who: secret === "" ? undefined : who.data,
      pending: secret !== "" && who.isPending,
      reason: refusal || (secret !== "" && who.error ? sentence(who.error.message) : ""),
      signIn: (value) => change(value),
      signOut: () => change(""),
    }),
    [secret, refusal, who.data, who.isPending, who.error, change],
  );
  return <Context.Provider value={session}>{children}</Context.Provider>;
}

export function useSession(): Session {
  const session = useContext(Context);
  if (!session) throw new Error("useSession outside of SessionProvider");
  return session;
}
