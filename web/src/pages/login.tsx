import { type FormEvent, useState } from "react";
import { useSession } from "../session";
import { useTitle } from "../ui/basics";

/** Asks for an API token; the hub says whether it is good. */
export function LoginPage() {
  useTitle("Sign in");
  const { signIn, reason } = useSession();
  const [value, setValue] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const trimmed = value.trim();
    if (trimmed) signIn(trimmed);
  };
  return (
    <main className="login">
      <h1>
        <img src="/icon.svg" alt="" width="40" height="40" /> Waybill
      </h1>
      <p>Why was an order routed so, on whose approval, and can it be proved? Sign in with your API token.</p>
      <form onSubmit={submit}>
        <label htmlFor="token">API token</label>
        <input
          id="token"
          type="password"
          autoComplete="off"
          spellCheck={false}
          required
          value={value}
          onChange={(e) => setValue(e.target.value)}
          aria-describedby={reason ? "login-error" : "login-help"}
          aria-invalid={reason ? true : undefined}
        />
        {reason && (
          <p className="state bad" id="login-error" role="alert">
            {reason}
          </p>
        )}
        <button type="submit">Sign in</button>
      </form>
      <p className="quiet" id="login-help">
        The token stays in this tab and is forgotten when you close it. An administrator makes one with{" "}
        <code>waybill token issue ACCOUNT</code>; <code>waybill dev</code> prints yours when it starts.
      </p>
    </main>
  );
}
