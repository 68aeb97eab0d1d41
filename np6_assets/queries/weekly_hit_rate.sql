-- Hit rate by week and notification, with its 95 % interval.
-- A week is that of the sends, and begins on Monday.
SELECT
    CAST(date_trunc('week', activation_date) AS DATE) AS week,
    name,
    denominator(hit_rate) AS delivered,
    rate(hit_rate) AS hit_rate,
    rate_low(hit_rate) AS low,
    rate_high(hit_rate) AS high,
    is_provisional(hit_rate) AS provisional
FROM cohorts
GROUP BY week, activation_id, name
ORDER BY week, hit_rate DESC NULLS LAST, name;
