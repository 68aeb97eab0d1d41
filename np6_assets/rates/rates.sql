-- The reactivity rates of any number of cohorts, in one pass over the event days. A cohort is the sends whose
-- `activated_at` falls on one calendar day.
--
-- Reads the event assets (`activations`, `hits`, `optouts`, `bounces`, `impressions`) and
--   cohort_days  a row for each UTC day that a cohort's day touches:
--     utc_date            that day: an equality to join by; the instants decide
--     activation_date     the cohort's day
--     starts_at, ends_at  the cohort's day as instants, half open, in the configured time zone
--     window_ends_at      when the last event day of its window ends
--     window_days         how many days after the cohort's day events count
--     has_activations, has_impressions    whether those assets are materialized for the cohort's day itself
--     days_loaded                         as in the result
--     status                              what its event days allow: as in the result
--   missing_ids  a row for each cohort (`activation_date`) and notification (`activation_id`) of which an event day
--                that the cohort needs could not be fetched
--
-- The text runs alike on DuckDB, Spark SQL (4, ANSI) and Sail: FILTER has its WHERE, NULLs their place, every NULL its
-- type, and no number a decimal point. The session's time zone is UTC, so that a cast to DATE gives the UTC day. Days
-- are told by the events' times, not by the files' folders: the engines read those each in its way.
--
-- Hits are taken once each where they are read: counting distinct ids for each send is five times the work of all else.
--
-- Adding a metric is one line in `counted` or in the last SELECT, and its description in columns.py.

WITH events AS (
    SELECT 'activation' AS kind, event_id, event_time, agency, customer, activation_id,
           activation_version, application_id, subscription_id, stamp_id, activated_at,
           CAST(NULL AS STRING) AS bounce_verdict
    FROM activations
    UNION ALL
    SELECT 'optout', event_id, event_time, agency, customer, activation_id,
           activation_version, application_id, subscription_id, stamp_id, activated_at, CAST(NULL AS STRING)
    FROM optouts
    UNION ALL
    SELECT 'bounce', event_id, event_time, agency, customer, activation_id,
           activation_version, application_id, subscription_id, stamp_id, activated_at, bounce_verdict
    FROM bounces
    UNION ALL
    SELECT 'impression', event_id, event_time, agency, customer, activation_id,
           activation_version, application_id, subscription_id, stamp_id, activated_at, CAST(NULL AS STRING)
    FROM impressions
),

-- Each cohort's events inside their window. An event without the time of its send is placed on its own day.
placed AS (
    SELECT events.*, cohort_days.activation_date
    FROM events
    JOIN cohort_days ON cohort_days.utc_date = CAST(coalesce(activated_at, event_time) AS DATE)
    WHERE coalesce(activated_at, event_time) >= starts_at
      AND coalesce(activated_at, event_time) < ends_at
      AND event_time >= starts_at
      AND event_time < window_ends_at
),

-- The same of the hits, the first of each id: one may have been published on two days.
placed_hits AS (
    SELECT hits.*, cohort_days.activation_date,
           row_number() OVER (PARTITION BY cohort_days.activation_date, event_id ORDER BY event_time) AS nth
    FROM hits
    JOIN cohort_days ON cohort_days.utc_date = CAST(coalesce(activated_at, event_time) AS DATE)
    WHERE coalesce(activated_at, event_time) >= starts_at
      AND coalesce(activated_at, event_time) < ends_at
      AND event_time >= starts_at
      AND event_time < window_ends_at
),

cohort_events AS (
    SELECT activation_date, kind, event_id, agency, customer, activation_id, activation_version, application_id,
           subscription_id, stamp_id, CAST(NULL AS STRING) AS link_type, bounce_verdict
    FROM placed
    UNION ALL
    SELECT activation_date, 'hit', event_id, agency, customer, activation_id, activation_version, application_id,
           subscription_id, stamp_id, link_type, CAST(NULL AS STRING)
    FROM placed_hits
    WHERE nth = 1
),

-- One row a send. An event without the id of its send is a send of its own.
sends AS (
    SELECT
        activation_date, agency, customer, activation_id, activation_version, application_id,
        bool_or(kind = 'activation') AS is_activated,
        bool_or(kind = 'impression') AS is_impressed,
        bool_or(kind = 'optout') AS is_optout,
        bool_or(kind = 'bounce') AS is_bounced,
        coalesce(bool_or(bounce_verdict = 'hard'), false) AS is_hard,
        coalesce(bool_or(bounce_verdict = 'soft'), false) AS is_soft,
        count(*) FILTER (WHERE kind = 'hit' AND link_type = 'redirection') AS hits,
        count(*) FILTER (WHERE kind = 'hit' AND link_type IS DISTINCT FROM 'redirection') AS other_hits
    FROM cohort_events
    GROUP BY
        activation_date, agency, customer, activation_id, activation_version, application_id,
        subscription_id, coalesce(stamp_id, event_id), stamp_id IS NULL
),

counted AS (
    SELECT
        activation_date, agency, customer, activation_id, activation_version, application_id,
        count(*) FILTER (WHERE is_activated) AS sent,
        count(*) FILTER (WHERE is_hard) AS bounces_hard,
        count(*) FILTER (WHERE is_soft AND NOT is_hard) AS bounces_soft,
        count(*) FILTER (WHERE is_bounced AND NOT is_hard AND NOT is_soft) AS bounces_other,
        count(*) FILTER (WHERE is_bounced) AS bounced,
        count(*) FILTER (WHERE hits > 0) AS hit_activations,
        CAST(sum(hits) AS BIGINT) AS hits,
        CAST(sum(other_hits) AS BIGINT) AS other_hits,
        count(*) FILTER (WHERE is_optout) AS optout_activations,
        count(*) FILTER (WHERE is_impressed) AS impressed,
        count(*) FILTER (WHERE hits > 0 OR is_optout OR is_bounced) AS reacting_activations,
        count(*) FILTER (WHERE (hits > 0 OR is_optout OR is_bounced) AND NOT is_activated) AS orphans
    FROM sends
    GROUP BY activation_date, agency, customer, activation_id, activation_version, application_id
),

-- What another asset's absence makes unknown is null, and so is all that is computed from it.
known AS (
    SELECT
        counted.*,
        CASE WHEN has_activations THEN sent END AS activations,
        CASE WHEN has_activations THEN greatest(sent - bounced, 0) END AS delivered,
        CASE WHEN has_activations THEN orphans END AS orphan_reactions,
        CASE WHEN has_impressions THEN impressed END AS impression_activations,
        window_days, days_loaded,
        CASE WHEN missing_ids.activation_id IS NULL THEN status ELSE 'incomplete' END AS status
    FROM counted
    JOIN (
        SELECT DISTINCT activation_date, window_days, has_activations, has_impressions, days_loaded, status
        FROM cohort_days
    ) AS cohorts
        ON cohorts.activation_date = counted.activation_date
    LEFT JOIN missing_ids
        ON missing_ids.activation_date = counted.activation_date AND missing_ids.activation_id = counted.activation_id
),

-- The hit rate p of n delivered sends. z, for 95 %, and its square are doubles by a cast: a literal is a decimal, with
-- which the engines compute differently.
shares AS (
    SELECT
        known.*,
        nullif(delivered, 0) AS n,
        hit_activations / nullif(delivered, 0) AS p,
        CAST('1.959963984540054' AS DOUBLE) AS z,
        CAST('3.841458820694125' AS DOUBLE) AS zz
    FROM known
),

-- The Wilson score interval: https://doi.org/10.1080/01621459.1927.10502953. Its bounds lie within 0 and 1; greatest
-- and least below only take away what floating point adds.
wilson AS (
    SELECT
        shares.*,
        p BETWEEN 0 AND 1 AS has_interval,
        (p + zz / (2 * n)) / (1 + zz / n) AS centre,
        z * sqrt(CASE WHEN p BETWEEN 0 AND 1 THEN p * (1 - p) / n + zz / (4 * n * n) END) / (1 + zz / n) AS half_width
    FROM shares
)

SELECT
    activation_date,
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
    p AS hit_rate,
    optout_activations / n AS optout_rate,
    bounced / nullif(activations, 0) AS bounce_rate,
    bounces_hard / nullif(activations, 0) AS hard_bounce_rate,
    impression_activations / n AS impression_rate,
    CASE WHEN has_interval THEN greatest(centre - half_width, 0) END AS hit_rate_low,
    CASE WHEN has_interval THEN least(centre + half_width, 1) END AS hit_rate_high,
    hits / nullif(hit_activations, 0) AS hits_per_hit_activation,
    hit_activations / nullif(reacting_activations, 0) AS hit_share,
    optout_activations / nullif(reacting_activations, 0) AS optout_share,
    bounced / nullif(reacting_activations, 0) AS bounce_share,
    window_days,
    days_loaded,
    status,
    status = 'final' AS is_final
FROM wilson
ORDER BY activation_date, agency NULLS LAST, customer NULLS LAST, activation_id, activation_version NULLS LAST,
    application_id NULLS LAST
