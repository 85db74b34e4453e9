"""What people call the tables and columns of the contract: the knowledge behind a guessed workspace."""

from collections.abc import Mapping

__all__ = ["ACCOUNT_IDS", "COLUMN_WORDS", "LATER_KNOWN", "MONTHLY_ARR", "TABLE_WORDS"]

TABLE_WORDS: Mapping[str, tuple[str, ...]] = {
    "accounts": (
        "accounts",
        "account",
        "customers",
        "customer",
        "clients",
        "client",
        "orgs",
        "organizations",
        "organisations",
        "companies",
        "tenants",
    ),
    "telemetry": ("telemetry", "events", "event", "usage", "activity", "activities", "logs", "actions", "stream"),
    "subscriptions": ("subscriptions", "subscription", "contracts", "contract", "plans", "licenses", "licences", "billing", "invoices"),
    "engagement": (
        *("engagement", "engagements", "touches", "touchpoints", "marketing", "emails", "meetings", "calls", "trainings"),
        *("nps", "surveys", "survey", "interactions", "communications", "contacts"),
    ),
    "tickets": ("tickets", "ticket", "support", "cases", "incidents", "helpdesk"),
    "partners": ("partners", "partner", "resellers", "channels"),
    "assignments": ("assignments", "assignment", "partner_accounts", "account_partners"),
    "outcomes": ("outcomes", "outcome", "goals", "success", "milestones", "objectives"),
    "plays": ("plays", "playbooks", "interventions", "ctas"),
}
"""Words in the names of files."""

ACCOUNT_IDS = (
    *("account_id", "accountid", "customer_id", "customerid", "client_id", "org_id", "organization_id", "organisation_id", "company_id"),
    *("tenant_id", "workspace_id", "account", "customer", "client", "organization", "company"),
)

COLUMN_WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "accounts": {
        "account_id": (*ACCOUNT_IDS, "id"),
        "created_at": (
            "created_at",
            "signup_date",
            "signed_up_at",
            "sign_up_date",
            "customer_since",
            "created",
            "created_date",
            "date_created",
        ),
        "name": ("name", "account_name", "customer_name", "company_name", "org_name", "client_name"),
        "segment": ("segment", "plan_tier", "tier", "size_segment", "plan"),
        "industry": ("industry", "sector", "vertical"),
        "region": ("region", "hq_region", "country", "country_code", "state", "geo", "territory"),
        "employees": ("employees", "employee_count", "headcount", "company_size", "num_employees"),
        "csm": ("csm", "csm_name", "account_manager", "owner", "sales_rep", "account_owner"),
    },
    "telemetry": {
        "account_id": ACCOUNT_IDS,
        "occurred_at": (
            *("occurred_at", "event_time", "timestamp", "event_timestamp", "event_date", "usage_date", "time", "ts", "datetime"),
            *("created_at", "date", "day", "d"),
        ),
        "event": (
            "event",
            "event_type",
            "event_name",
            "event_type_name",
            "feature_name",
            "feature",
            "action",
            "metric",
            "activity",
            "type",
            "event_type_id",
        ),
        "user_id": ("user_id", "userid", "user", "actor_id", "member_id", "author_id"),
        "events": ("events", "event_count", "usage_count", "n_events", "count", "n"),
        "users": ("users", "n_users", "user_count", "active_users", "distinct_users"),
        "quantity": ("quantity", "amount", "value", "event_value", "duration", "usage_duration_secs", "cost_usd_increment"),
        "product": ("product", "module", "service", "app"),
        "recorded_at": ("recorded_at", "ingested_at", "loaded_at", "received_at"),
    },
    "subscriptions": {
        "account_id": (*ACCOUNT_IDS, "id"),
        "subscription_id": ("subscription_id", "contract_id", "sub_id", "subscription"),
        "start_date": (
            "start_date",
            "starts_at",
            "start",
            "valid_from",
            "date_activ",
            "activation_date",
            "period_start",
            "begin_date",
            "month",
        ),
        "end_date": ("end_date", "ends_at", "end", "renewal_date", "date_end", "valid_to", "expires_at", "expiry_date", "period_end"),
        "arr": ("arr", "arr_amount", "annual_recurring_revenue", "acv", "annual_value"),
        "product": ("product", "plan", "plan_tier", "plan_name", "sku"),
        "seats": ("seats", "licenses", "licences", "seat_count", "quantity"),
        "currency": ("currency", "currency_code"),
        "list_arr": ("list_arr", "list_price"),
        "auto_renew": ("auto_renew", "auto_renew_flag", "autorenew", "auto_renewal"),
        "cancelled_at": ("cancelled_at", "canceled_at", "cancellation_date", "notice_date"),
        "recorded_at": ("recorded_at",),
    },
    "engagement": {
        "account_id": ACCOUNT_IDS,
        "occurred_at": (
            "occurred_at",
            "timestamp",
            "sent_at",
            "survey_date",
            "meeting_date",
            "touch_date",
            "created_at",
            "date",
            "responded_at",
        ),
        "channel": ("channel", "medium", "touch_type", "interaction_type"),
        "kind": ("kind", "campaign", "type", "subject", "survey_type"),
        "contact_id": ("contact_id", "person_id", "respondent_id"),
        "value": ("value", "nps_score", "score", "nps", "rating", "csat"),
        "source": ("source_party",),
        "recorded_at": ("recorded_at",),
        "withdrawn_at": ("withdrawn_at", "retracted_at"),
    },
    "tickets": {
        "ticket_id": ("ticket_id", "case_id", "issue_id", "ticket", "id"),
        "account_id": ACCOUNT_IDS,
        "opened_at": ("opened_at", "created_at", "submitted_at", "created", "opened", "open_date", "date"),
        "closed_at": ("closed_at", "resolved_at", "solved_at", "closed", "close_date"),
        "severity": ("severity", "priority", "urgency"),
        "csat": ("csat", "satisfaction_score", "csat_score", "satisfaction", "rating"),
    },
    "partners": {
        "partner_id": ("partner_id", "reseller_id", "id"),
        "name": ("name", "partner_name"),
        "type": ("type", "partner_type"),
        "tier": ("tier", "partner_tier", "level"),
        "region": ("region", "country"),
    },
    "assignments": {
        "account_id": ACCOUNT_IDS,
        "partner_id": ("partner_id", "reseller_id"),
        "valid_from": ("valid_from", "start_date", "assigned_at", "from_date"),
        "valid_to": ("valid_to", "end_date", "to_date"),
    },
    "outcomes": {
        "account_id": ACCOUNT_IDS,
        "outcome_id": ("outcome_id", "goal_id", "milestone_id", "id"),
        "agreed_at": ("agreed_at", "created_at", "set_at", "agreed_on"),
        "due_at": ("due_at", "due_date", "target_date"),
        "verified_at": ("verified_at", "achieved_at", "completed_at"),
        "verified_by": ("verified_by",),
        "value": ("value", "worth"),
    },
    "plays": {
        "account_id": ACCOUNT_IDS,
        "play": ("play", "play_name", "playbook", "action"),
        "performed_at": ("performed_at", "done_at", "completed_at", "date"),
        "performed_by": ("performed_by", "owner", "actor"),
        "category": ("category",),
        "cost": ("cost",),
    },
}
"""What the columns of each table are called, the most telling name first."""

MONTHLY_ARR = ("mrr", "mrr_amount", "monthly_recurring_revenue", "monthly_amount", "subtotal", "monthly_fee")
"""Names of monthly amounts, of which twelve make the ARR."""

LATER_KNOWN = ("churn", "cancel", "lifecycle", "status", "label", "target", "renewed", "score", "health", "risk", "upgrade", "downgrade")
"""Parts of names of columns that are brought up to date later: as a fixed attribute of the account they would give the future away."""
