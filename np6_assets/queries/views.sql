-- What the queries beside this file are written over. Before this runs, `views.py` has made
--   activations, impressions, hits, optouts, bounces, notifications    the assets as they are stored
--   stored.reactivity_rates    the same of the rates; in a schema of its own, as a mean of its rates would be wrong
--   settings    one row: `timezone`, in which a day is a day
--
-- A rate is a pair of counts, { numerator, denominator }, which SUM and AVG refuse. `rate(hit_rate)` is the aggregate:
-- the sum of the numerators over the sum of the denominators. The pair is NULL, and so in neither sum, where the row
-- is incomplete, or a count is not known or the denominator is 0.

-- The pair of a row. `status` is that of the row in the rates.
CREATE MACRO pair(numerator, denominator, status) AS
    CASE WHEN status <> 'incomplete' AND denominator > 0 AND numerator IS NOT NULL
         THEN {'numerator': CAST(numerator AS BIGINT), 'denominator': CAST(denominator AS BIGINT),
               'is_open': status = 'open'} END;

-- The rate of some rows together; NULL where no row has it.
CREATE MACRO rate(pair) AS sum(pair.numerator) / sum(pair.denominator);

-- The counts that the rate is of.
CREATE MACRO numerator(pair) AS CAST(sum(pair.numerator) AS BIGINT);
CREATE MACRO denominator(pair) AS CAST(sum(pair.denominator) AS BIGINT);

-- Whether the rate can still change, as the window of some of the rows has not closed.
CREATE MACRO is_provisional(pair) AS bool_or(pair.is_open);

-- The 95 % Wilson score interval of `part` of `whole`, as in rates.sql: -1 for its lower end, 1 for its upper end.
CREATE MACRO wilson(part, whole, side) AS
    CASE WHEN part BETWEEN 0 AND whole
         THEN greatest(0, least(1, (
             part / whole + 3.841458820694125::DOUBLE / (2 * whole) + side * 1.959963984540054::DOUBLE
             * sqrt(part / whole * (1 - part / whole) / whole + 3.841458820694125::DOUBLE / (4.0::DOUBLE * whole * whole))
         ) / (1 + 3.841458820694125::DOUBLE / whole))) END;

-- The ends of the interval of `rate`.
CREATE MACRO rate_low(pair) AS wilson(sum(pair.numerator)::DOUBLE, sum(pair.denominator)::DOUBLE, -1);
CREATE MACRO rate_high(pair) AS wilson(sum(pair.numerator)::DOUBLE, sum(pair.denominator)::DOUBLE, 1);

-- The rates, a row for each day of the send, notification, version and application. The counts are in the pairs, so that
-- those of one rate are of the same rows; all of them, of all rows, are in stored.reactivity_rates.
CREATE VIEW cohorts AS
WITH rates AS (
    -- of version 0.1 there is no status
    SELECT * REPLACE (coalesce(status, CASE WHEN is_final THEN 'final' ELSE 'open' END) AS status)
    FROM stored.reactivity_rates
)
SELECT
    activation_date,
    agency,
    customer,
    activation_id,
    coalesce(nullif(notifications.name, ''), 'notification ' || activation_id) AS name,
    activation_version,
    application_id,
    pair(hit_activations, delivered, status) AS hit_rate,
    pair(optout_activations, delivered, status) AS optout_rate,
    pair(bounced, activations, status) AS bounce_rate,
    pair(bounces_hard, activations, status) AS hard_bounce_rate,
    pair(impression_activations, delivered, status) AS impression_rate,
    pair(hits, hit_activations, status) AS hits_per_hit_activation,
    pair(hit_activations, reacting_activations, status) AS hit_share,
    pair(optout_activations, reacting_activations, status) AS optout_share,
    pair(bounced, reacting_activations, status) AS bounce_share,
    window_days,
    status
FROM rates
LEFT JOIN notifications USING (activation_id);

-- A row for each send of the cohorts that have rates. Which events are a send's is what rates.sql says.
CREATE VIEW sends AS
WITH events AS (
    SELECT 'activation' AS kind, * FROM activations
    UNION ALL BY NAME SELECT 'impression' AS kind, * FROM impressions
    UNION ALL BY NAME SELECT 'hit' AS kind, * FROM hits
    UNION ALL BY NAME SELECT 'optout' AS kind, * FROM optouts
    UNION ALL BY NAME SELECT 'bounce' AS kind, * FROM bounces
),
-- The event days of each cohort.
days AS (
    SELECT activation_date, activation_date + CAST(unnest(range(max(window_days) + 1)) AS INTEGER) AS event_date
    FROM stored.reactivity_rates
    GROUP BY activation_date
),
placed AS (
    SELECT events.*, activation_date, coalesce(activated_at, event_time) AT TIME ZONE timezone AS local_time
    FROM events
    CROSS JOIN settings
    JOIN days
        ON days.event_date = events.event_date
       AND days.activation_date = CAST(coalesce(activated_at, event_time) AT TIME ZONE timezone AS DATE)
)
SELECT
    activation_date, agency, customer, activation_id, activation_version, application_id,
    min(local_time) AS sent_at,
    bool_or(kind = 'activation') AS is_sent,
    bool_or(kind = 'impression') AS is_displayed,
    coalesce(bool_or(kind = 'hit' AND link_type = 'redirection'), false) AS is_hit,
    bool_or(kind = 'optout') AS is_optout,
    bool_or(kind = 'bounce') AS is_bounced,
    -- those of its worst bounce: hard, then soft, then any other
    arg_min(
        {'verdict': bounce_verdict, 'reason': bounce_reason},
        {'rank': CASE bounce_verdict WHEN 'hard' THEN 0 WHEN 'soft' THEN 1 ELSE 2 END, 'time': event_time, 'id': event_id}
    ) FILTER (WHERE kind = 'bounce') AS bounce
FROM placed
GROUP BY
    activation_date, agency, customer, activation_id, activation_version, application_id,
    subscription_id, coalesce(stamp_id, event_id), stamp_id IS NULL;

-- The rates by hour of the send: `cohorts`, each row by the hours in which its sends went out. `weekday` is 1 (Monday)
-- to 7, `hour` 0 to 23, both in the time zone of the settings.
CREATE VIEW send_hours AS
WITH hours AS (
    SELECT
        activation_date, agency, customer, activation_id, activation_version, application_id,
        hour(sent_at) AS hour,
        count(*) FILTER (WHERE is_sent) AS sent,
        count(*) FILTER (WHERE is_bounced) AS bounced,
        count(*) FILTER (WHERE is_hit) AS hit,
        count(*) FILTER (WHERE is_optout) AS optout,
        count(*) FILTER (WHERE is_displayed) AS displayed
    FROM sends
    GROUP BY ALL
)
SELECT
    cohorts.activation_date, cohorts.agency, cohorts.customer, cohorts.activation_id, name, cohorts.activation_version,
    cohorts.application_id,
    isodow(cohorts.activation_date) AS weekday,
    hour,
    -- what the day does not know, its hours do not
    CASE WHEN hit_rate IS NOT NULL THEN pair(hit, greatest(sent - bounced, 0), status) END AS hit_rate,
    CASE WHEN optout_rate IS NOT NULL THEN pair(optout, greatest(sent - bounced, 0), status) END AS optout_rate,
    CASE WHEN bounce_rate IS NOT NULL THEN pair(bounced, sent, status) END AS bounce_rate,
    CASE WHEN impression_rate IS NOT NULL THEN pair(displayed, greatest(sent - bounced, 0), status) END
        AS impression_rate,
    status
FROM cohorts
JOIN hours
    ON hours.activation_date = cohorts.activation_date
   AND hours.activation_id = cohorts.activation_id
   AND hours.agency IS NOT DISTINCT FROM cohorts.agency
   AND hours.customer IS NOT DISTINCT FROM cohorts.customer
   AND hours.activation_version IS NOT DISTINCT FROM cohorts.activation_version
   AND hours.application_id IS NOT DISTINCT FROM cohorts.application_id;
