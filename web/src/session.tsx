// Who looks at the pages. A token comes from the form, or from the fragment of a link ("#token=…"), which browsers
// never send to a server and which is taken out of the address at once.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { createContext, type ReactNode, useCallback, useContext, useMemo, useState } from "react";
import { api, data, token } from "./api/client";
import type { WhoAmI } from "./api/types";

interface Session {
  who: WhoAmI | undefined;
  pending: boolean;
  error: Error | null;
  signIn: (value: string) => void;
  signOut: () => void;
}

const Context = createContext<Session | undefined>(undefined);

/** Takes "#token=…" out of the address bar, before anything is drawn. */
export function takeTokenFromAddress(): void {
  const match = /^#token=([A-Za-z0-9_-]+)$/.exec(location.hash);
  if (!match?.[1]) return;
  token.set(match[1]);
  history.replaceState(history.state, "", location.pathname + location.search);
}

export function SessionProvider({ children }: { children: ReactNode }) {
  const queries = useQueryClient();
  const [secret, setSecret] = useState(token.get);
  const who = useQuery({
    queryKey: ["whoami", secret],
    queryFn: () => data(api.GET("/v1/whoami")),
    enabled: secret !== "",
    staleTime: 60_000,
  });
  const change = useCallback(
    (value: string) => {
      if (value) token.set(value);
      else token.clear();
      queries.clear();
      setSecret(value);
    },
    [queries],
  );
  const session = useMemo<Session>(
    () => ({
      who: secret === "" ? undefined : who.data,
      pending: secret !== "" && who.isPending,
      error: secret === "" ? null : who.error,
      signIn: change,
      signOut: () => change(""),
    }),
    [secret, who.data, who.isPending, who.error, change],
  );
  return <Context.Provider value={session}>{children}</Context.Provider>;
}

export function useSession(): Session {
  const session = useContext(Context);
  if (!session) throw new Error("useSession outside of SessionProvider");
  return session;
}
