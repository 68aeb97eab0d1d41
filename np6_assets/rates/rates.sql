-- The reactivity rates of one cohort: the sends whose `activated_at` falls on one calendar day.
--
-- Reads the event assets (`activations`, `hits`, `optouts`, `bounces`, `impressions`), each with its column
-- `event_date`, and one row of `cohort`:
--   activation_date     the cohort's day
--   starts_at, ends_at  that day as instants, half open, in the configured time zone
--   window_days         how many days after it reactions count
--   has_activations, has_impressions    whether those assets are materialized for the day itself
--   days_loaded, is_final               as in the result
--
-- Hits are taken once each where they are read: counting distinct ids for each send is five times the work of all else.
--
-- Adding a metric is one line in `counted` or in the last SELECT, and its description in columns.py.

WITH events AS (
    SELECT 'activation' AS kind, event_id, event_time, event_date, agency, customer, activation_id,
           activation_version, application_id, subscription_id, stamp_id, activated_at,
           NULL AS link_type, NULL AS bounce_verdict
    FROM activations
    UNION ALL BY NAME
    SELECT 'hit' AS kind, event_id, event_time, event_date, agency, customer, activation_id,
           activation_version, application_id, subscription_id, stamp_id, activated_at, link_type
    FROM (SELECT DISTINCT ON (event_id) * FROM hits ORDER BY event_id, event_date)
    UNION ALL BY NAME
    SELECT 'optout' AS kind, event_id, event_time, event_date, agency, customer, activation_id,
           activation_version, application_id, subscription_id, stamp_id, activated_at
    FROM optouts
    UNION ALL BY NAME
    SELECT 'bounce' AS kind, event_id, event_time, event_date, agency, customer, activation_id,
           activation_version, application_id, subscription_id, stamp_id, activated_at, bounce_verdict
    FROM bounces
    UNION ALL BY NAME
    SELECT 'impression' AS kind, event_id, event_time, event_date, agency, customer, activation_id,
           activation_version, application_id, subscription_id, stamp_id, activated_at
    FROM impressions
),

-- The cohort's events inside their window. An event without the time of its send is placed on its own day.
cohort_events AS (
    SELECT events.*
    FROM events, cohort
    WHERE coalesce(activated_at, event_time) >= starts_at
      AND coalesce(activated_at, event_time) < ends_at
      AND event_date >= activation_date
      AND event_date <= activation_date + CASE WHEN kind = 'activation' THEN 1 ELSE window_days END
),

-- One row a send. An event without the id of its send is a send of its own.
sends AS (
    SELECT
        agency, customer, activation_id, activation_version, application_id,
        bool_or(kind = 'activation') AS is_activated,
        bool_or(kind = 'impression') AS is_impressed,
        bool_or(kind = 'optout') AS is_optout,
        bool_or(kind = 'bounce') AS is_bounced,
        coalesce(bool_or(bounce_verdict = 'hard'), false) AS is_hard,
        coalesce(bool_or(bounce_verdict = 'soft'), false) AS is_soft,
        count(*) FILTER (kind = 'hit' AND link_type = 'redirection') AS hits,
        count(*) FILTER (kind = 'hit' AND link_type IS DISTINCT FROM 'redirection') AS other_hits
    FROM cohort_events
    GROUP BY
        agency, customer, activation_id, activation_version, application_id,
        subscription_id, coalesce(stamp_id, event_id), stamp_id IS NULL
),

counted AS (
    SELECT
        agency, customer, activation_id, activation_version, application_id,
        count(*) FILTER (is_activated) AS sent,
        count(*) FILTER (is_hard) AS bounces_hard,
        count(*) FILTER (is_soft AND NOT is_hard) AS bounces_soft,
        count(*) FILTER (is_bounced AND NOT is_hard AND NOT is_soft) AS bounces_other,
        count(*) FILTER (is_bounced) AS bounced,
        count(*) FILTER (hits > 0) AS hit_activations,
        sum(hits)::BIGINT AS hits,
        sum(other_hits)::BIGINT AS other_hits,
        count(*) FILTER (is_optout) AS optout_activations,
        count(*) FILTER (is_impressed) AS impressed,
        count(*) FILTER (hits > 0 OR is_optout OR is_bounced) AS reacting_activations,
        count(*) FILTER ((hits > 0 OR is_optout OR is_bounced) AND NOT is_activated) AS orphans
    FROM sends
    GROUP BY ALL
),

-- What another asset's absence makes unknown is null, and so is all that is computed from it.
known AS (
    SELECT
        counted.*,
        CASE WHEN has_activations THEN sent END AS activations,
        CASE WHEN has_activations THEN greatest(sent - bounced, 0) END AS delivered,
        CASE WHEN has_activations THEN orphans END AS orphan_reactions,
        CASE WHEN has_impressions THEN impressed END AS impression_activations,
        window_days, days_loaded, is_final
    FROM counted, cohort
),

-- The Wilson score interval: https://doi.org/10.1080/01621459.1927.10502953, with z for 95 %. Its bounds lie within
-- 0 and 1; greatest and least below only take away what floating point adds.
wilson AS (
    SELECT
        *,
        hit_activations / nullif(delivered, 0) AS p,
        1.959963984540054 AS z,
        p BETWEEN 0 AND 1 AS has_interval,
        (p + z * z / (2 * delivered)) / (1 + z * z / delivered) AS centre,
        z * sqrt(CASE WHEN has_interval THEN p * (1 - p) / delivered + z * z / (4 * delivered * delivered) END)
            / (1 + z * z / delivered) AS half_width
    FROM known
)

SELECT
    agency,
    customer,
    activation_id,
    activation_version,
    application_id,
    activations,
    bounces_hard,
    bounces_soft,
    bounces_other,
    bounced,
    delivered,
    hit_activations,
    hits,
    other_hits,
    optout_activations,
    impression_activations,
    reacting_activations,
    orphan_reactions,
    hit_activations / nullif(delivered, 0) AS hit_rate,
    optout_activations / nullif(delivered, 0) AS optout_rate,
    bounced / nullif(activations, 0) AS bounce_rate,
    bounces_hard / nullif(activations, 0) AS hard_bounce_rate,
    impression_activations / nullif(delivered, 0) AS impression_rate,
    CASE WHEN has_interval THEN greatest(centre - half_width, 0) END AS hit_rate_low,
    CASE WHEN has_interval THEN least(centre + half_width, 1) END AS hit_rate_high,
    hits / nullif(hit_activations, 0) AS hits_per_hit_activation,
    hit_activations / nullif(reacting_activations, 0) AS hit_share,
    optout_activations / nullif(reacting_activations, 0) AS optout_share,
    bounced / nullif(reacting_activations, 0) AS bounce_share,
    window_days,
    days_loaded,
    is_final
FROM wilson
ORDER BY agency, customer, activation_id, activation_version, application_id
