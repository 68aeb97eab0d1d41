-- Rates by application, which tells platforms apart.
-- The rate of impressions is empty where there are none.
SELECT
    application_id,
    denominator(bounce_rate) AS sends,
    rate(hit_rate) AS hit_rate,
    rate(optout_rate) AS optout_rate,
    rate(bounce_rate) AS bounce_rate,
    rate(impression_rate) AS impression_rate,
    is_provisional(bounce_rate) AS provisional
FROM cohorts
GROUP BY application_id
ORDER BY sends DESC NULLS LAST, application_id;
