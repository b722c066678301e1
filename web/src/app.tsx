import { NavLink, Outlet, Route, Routes, useLocation } from "react-router";
import { DecisionPage } from "./pages/decision";
import { DecisionsPage } from "./pages/decisions";
import { HomePage } from "./pages/home";
import { LoginPage } from "./pages/login";
import { useSession } from "./session";
import { Boundary, Empty, Loading, useTitle } from "./ui/basics";

/** The pages. Without a valid token every address shows the login, and leads on to itself afterwards. */
export function App() {
  const { who, pending } = useSession();
  if (pending) return <Loading what="your session" />;
  if (!who) return <LoginPage />;
  return (
    <Routes>
      <Route element={<Frame />}>
        <Route index element={<HomePage />} />
        <Route path="decisions" element={<DecisionsPage />} />
        <Route path="decisions/:id" element={<DecisionPage />} />
        <Route path="*" element={<NotFound />} />
      </Route>
    </Routes>
  );
}

function Frame() {
  const { who, signOut } = useSession();
  const { key } = useLocation();
  return (
    <>
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <header className="top">
        <NavLink to="/" className="brand" end>
          <img src="/icon.svg" alt="" width="24" height="24" />
          Waybill
        </NavLink>
        <nav aria-label="Pages">
          <NavLink to="/" end>
            Home
          </NavLink>
          <NavLink to="/decisions">Decisions</NavLink>
        </nav>
        <div className="who">
          <span title={`Roles: ${(who?.roles ?? []).join(", ")}`}>
            {who?.account} <span className="quiet">at {who?.tenant}</span>
          </span>
          <button type="button" className="plain" onClick={signOut}>
            Sign out
          </button>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <Boundary place={key}>
          <Outlet />
        </Boundary>
      </main>
    </>
  );
}

function NotFound() {
  useTitle("Not found");
  return (
    <>
      <h1>There is no such page</h1>
      <Empty>
        The address is wrong, or the page is gone. <NavLink to="/">Home</NavLink> shows what there is.
      </Empty>
    </>
  );
}
