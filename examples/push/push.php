<?php
// Sends a message to a group, and asks how many members it has.

function push(string $call, array $fields): array
{
    $http = [
        'method' => 'POST',
        'header' => ['Content-Type: application/json', 'Authorization: Bearer ' . getenv('PUSH_TOKEN')],
        'content' => json_encode((object) $fields, JSON_THROW_ON_ERROR),
        'ignore_errors' => true,
        'timeout' => 20,
    ];
    $url = (getenv('PUSH_API') ?: 'http://127.0.0.1:19908/api/') . $call;
    $body = file_get_contents($url, false, stream_context_create(['http' => $http]));
    if ($body === false) {
        throw new RuntimeException("$url cannot be reached");
    }
    $answer = json_decode($body, true, 512, JSON_THROW_ON_ERROR);
    // A reply has no `status`; the description of an error has.
    if (isset($answer['status'])) {
        throw new RuntimeException(($answer['field'] ?? $call) . ': ' . $answer['detail']);
    }
    return $answer;
}

push('send', ['to' => ['groups' => ['lobby']], 'text' => 'tea is ready']);
echo push('query/count', ['filter' => ['groups' => ['lobby']]])['count'], " are there\n";
