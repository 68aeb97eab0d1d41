-- The last 7 days against the 7 before, by notification.
-- Without today, of which most is still to come. A provisional rate has more hits to come as well.
WITH days AS (
    SELECT
        cohorts.*,
        least(max(activation_date) OVER (), CAST(now() AT TIME ZONE timezone AS DATE) - 1) - activation_date AS age
    FROM cohorts CROSS JOIN settings
),
periods AS (
    SELECT *, CASE WHEN age < 7 THEN hit_rate END AS now, CASE WHEN age >= 7 THEN hit_rate END AS before
    FROM days WHERE age BETWEEN 0 AND 13
)
SELECT
    name,
    denominator(now) AS delivered,
    rate(now) AS hit_rate,
    is_provisional(now) AS provisional,
    denominator(before) AS delivered_before,
    rate(before) AS hit_rate_before,
    rate(now) - rate(before) AS change
FROM periods
GROUP BY activation_id, name
ORDER BY delivered DESC NULLS LAST, name;
