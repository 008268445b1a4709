<?php
// Pushes to a group, and asks how many are in it.

function push(string $call, array $fields): array
{
    $curl = curl_init((getenv('PUSH_API') ?: 'http://127.0.0.1:19908/api/') . $call);
    curl_setopt_array($curl, [
        CURLOPT_POSTFIELDS => json_encode((object) $fields, JSON_THROW_ON_ERROR),
        CURLOPT_HTTPHEADER => ['Content-Type: application/json', 'Authorization: Bearer ' . getenv('PUSH_TOKEN')],
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT => 20,
    ]);
    $body = curl_exec($curl);
    if ($body === false) {
        throw new RuntimeException(curl_error($curl));
    }
    $answer = json_decode($body, true, 512, JSON_THROW_ON_ERROR);
    if (curl_getinfo($curl, CURLINFO_RESPONSE_CODE) !== 200) {
        throw new RuntimeException(($answer['field'] ?? $call) . ': ' . $answer['detail']);
    }
    return $answer;
}

push('send', ['to' => ['groups' => ['lobby']], 'text' => 'tea is ready']);
echo push('query/count', ['filter' => ['groups' => ['lobby']]])['count'], " are there\n";
