package api

import (
	"context"
	"strings"
	"time"

	"waybill"
	"waybill/internal/access"
	accessv1 "waybill/proto/waybill/access/v1"
)

// accounts serves AccessService.
type accounts struct {
	accessv1.UnimplementedAccessServiceServer
	access *access.Access
}

// WhoAmI returns the caller.
func (s *accounts) WhoAmI(ctx context.Context, _ *accessv1.WhoAmIRequest) (*accessv1.WhoAmIResponse, error) {
	a := callerOf(ctx).actor
	return &accessv1.WhoAmIResponse{Account: a.ID, Tenant: string(a.Tenant), Kind: string(a.Kind), Roles: s.access.Roles(a), PolicyRev: s.access.Rev()}, nil
}

// CreateTenant makes a tenant with one administrator.
func (s *accounts) CreateTenant(ctx context.Context, req *accessv1.CreateTenantRequest) (*accessv1.CreateTenantResponse, error) {
	c := callerOf(ctx)
	token, err := s.access.CreateTenant(ctx, c.actor, c.grant, waybill.Tenant(req.GetTenant()), req.GetAdmin())
	if err != nil {
		return nil, err
	}
	return &accessv1.CreateTenantResponse{Tenant: req.GetTenant(), Admin: req.GetAdmin(), Token: token}, nil
}

// CreateAccount adds an account.
func (s *accounts) CreateAccount(ctx context.Context, req *accessv1.CreateAccountRequest) (*accessv1.CreateAccountResponse, error) {
	a, err := s.access.CreateAccount(ctx, callerOf(ctx).actor, access.Account{ID: req.GetAccount(), Kind: waybill.ActorKind(req.GetKind()),
		DisplayName: req.GetDisplayName(), Roles: req.GetRoles()})
	if err != nil {
		return nil, err
	}
	return &accessv1.CreateAccountResponse{Account: accountOut(a)}, nil
}

func accountOut(a access.Account) *accessv1.Account {
	return &accessv1.Account{Account: a.ID, Kind: string(a.Kind), DisplayName: a.DisplayName, Roles: a.Roles}
}

// ListAccounts lists accounts by id.
func (s *accounts) ListAccounts(ctx context.Context, req *accessv1.ListAccountsRequest) (*accessv1.ListAccountsResponse, error) {
	n, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	list, next, err := s.access.ListAccounts(ctx, callerOf(ctx).actor.Tenant, access.Page{Size: n, Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	out := &accessv1.ListAccountsResponse{NextPageToken: next}
	for _, a := range list {
		out.Accounts = append(out.Accounts, accountOut(a))
	}
	return out, nil
}

// BindRole gives a role.
func (s *accounts) BindRole(ctx context.Context, req *accessv1.BindRoleRequest) (*accessv1.BindRoleResponse, error) {
	rev, err := s.access.BindRole(ctx, callerOf(ctx).actor, req.GetAccount(), req.GetRole())
	if err != nil {
		return nil, err
	}
	return &accessv1.BindRoleResponse{PolicyRev: rev}, nil
}

// UnbindRole takes a role.
func (s *accounts) UnbindRole(ctx context.Context, req *accessv1.UnbindRoleRequest) (*accessv1.UnbindRoleResponse, error) {
	rev, err := s.access.UnbindRole(ctx, callerOf(ctx).actor, req.GetAccount(), req.GetRole())
	if err != nil {
		return nil, err
	}
	return &accessv1.UnbindRoleResponse{PolicyRev: rev}, nil
}

// IssueToken makes a token.
func (s *accounts) IssueToken(ctx context.Context, req *accessv1.IssueTokenRequest) (*accessv1.IssueTokenResponse, error) {
	const year = 365 * 24 * 3600
	if req.GetTtlSeconds() < 1 || req.GetTtlSeconds() > year {
		return nil, waybill.InvalidField("ttl_seconds", "must lie in 1 to 31,536,000 (a year)")
	}
	c := callerOf(ctx)
	t, text, err := s.access.IssueToken(ctx, c.actor, c.grant, req.GetAccount(), time.Duration(req.GetTtlSeconds())*time.Second, req.GetScopes())
	if err != nil {
		return nil, err
	}
	return &accessv1.IssueTokenResponse{Token: tokenOut(t), Secret: text}, nil
}

func tokenOut(t access.Token) *accessv1.Token {
	out := &accessv1.Token{TokenId: t.ID, Account: t.Account, Scopes: t.Scopes, CreatedBy: t.CreatedBy, CreatedAt: stamp(t.CreatedAt), ExpiresAt: stamp(t.ExpiresAt)}
	if t.RevokedAt != nil {
		out.RevokedAt = stamp(*t.RevokedAt)
	}
	if t.LastUsedAt != nil {
		out.LastUsedAt = stamp(*t.LastUsedAt)
	}
	return out
}

// ListTokens lists tokens without their secrets.
func (s *accounts) ListTokens(ctx context.Context, req *accessv1.ListTokensRequest) (*accessv1.ListTokensResponse, error) {
	n, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	list, next, err := s.access.ListTokens(ctx, callerOf(ctx).actor.Tenant, access.Page{Size: n, Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	out := &accessv1.ListTokensResponse{NextPageToken: next}
	for _, t := range list {
		out.Tokens = append(out.Tokens, tokenOut(t))
	}
	return out, nil
}

// RevokeToken ends a token.
func (s *accounts) RevokeToken(ctx context.Context, req *accessv1.RevokeTokenRequest) (*accessv1.RevokeTokenResponse, error) {
	rev, err := s.access.RevokeToken(ctx, callerOf(ctx).actor, req.GetTokenId())
	if err != nil {
		return nil, err
	}
	return &accessv1.RevokeTokenResponse{PolicyRev: rev}, nil
}

// ListRules lists the policy.
func (s *accounts) ListRules(ctx context.Context, req *accessv1.ListRulesRequest) (*accessv1.ListRulesResponse, error) {
	n, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	list, next, err := s.access.ListRules(ctx, callerOf(ctx).actor.Tenant, access.Page{Size: n, Token: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	out := &accessv1.ListRulesResponse{NextPageToken: next, PolicyRev: s.access.Rev()}
	for _, r := range list {
		out.Rules = append(out.Rules, ruleOut(r))
	}
	return out, nil
}

func ruleOut(r access.Rule) *accessv1.Rule {
	return &accessv1.Rule{Subject: r.Subject, Object: r.Object, Action: r.Action, Effect: string(r.Effect), BuiltIn: r.BuiltIn()}
}

func ruleIn(r *accessv1.Rule) (access.Rule, error) {
	if r == nil {
		return access.Rule{}, waybill.InvalidField("rule", "is missing; give subject, object, action and effect")
	}
	return access.Rule{Subject: r.GetSubject(), Object: r.GetObject(), Action: r.GetAction(), Effect: access.Effect(r.GetEffect())}, nil
}

// AddRule adds a rule.
func (s *accounts) AddRule(ctx context.Context, req *accessv1.AddRuleRequest) (*accessv1.AddRuleResponse, error) {
	r, err := ruleIn(req.GetRule())
	if err != nil {
		return nil, err
	}
	rev, err := s.access.AddRule(ctx, callerOf(ctx).actor, r)
	if err != nil {
		return nil, err
	}
	return &accessv1.AddRuleResponse{PolicyRev: rev}, nil
}

// RemoveRule removes a rule.
func (s *accounts) RemoveRule(ctx context.Context, req *accessv1.RemoveRuleRequest) (*accessv1.RemoveRuleResponse, error) {
	r, err := ruleIn(req.GetRule())
	if err != nil {
		return nil, err
	}
	rev, err := s.access.RemoveRule(ctx, callerOf(ctx).actor, r)
	if err != nil {
		return nil, err
	}
	return &accessv1.RemoveRuleResponse{PolicyRev: rev}, nil
}

// ExplainAccess says whether and why.
func (s *accounts) ExplainAccess(ctx context.Context, req *accessv1.ExplainAccessRequest) (*accessv1.ExplainAccessResponse, error) {
	actor, err := s.access.Lookup(callerOf(ctx).actor.Tenant, strings.TrimSpace(req.GetAccount()))
	if err != nil {
		return nil, err
	}
	e, err := s.access.Explain(actor, req.GetResource(), req.GetAction())
	if err != nil {
		return nil, err
	}
	out := &accessv1.ExplainAccessResponse{Allowed: e.Allowed, Roles: e.Roles, PolicyRev: e.Rev}
	if e.Rule != nil {
		out.Rule = ruleOut(*e.Rule)
	}
	return out, nil
}
